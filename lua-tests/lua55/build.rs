//! The module finds Lua's functions in the program that loads it.

fn main() {
    println!("cargo:rustc-link-arg-bins=-rdynamic");
}
