# What a newcomer types. Everything else is in tools/.

LUAS = lua5.1 lua5.2 lua5.3 lua5.4 luajit

.PHONY: all demo test lint clean setup setup-demo setup-bench bench-json bench-echo bench-tls bench-memory

all: demo

# Builds the module, installs it with LuaRocks into a tree of its own, and runs its main job.
demo: setup-demo
	tools/demo.sh

# Every test on every interpreter, then the rock and the examples.
test: setup
	tools/test.sh $(LUAS)

lint: setup
	cargo fmt --check
	cargo fmt --check --manifest-path lua-tests/lua55/Cargo.toml
	cargo clippy --release --locked --all-targets -- -D warnings
	cargo clippy --release --locked --all-targets --features lua54 -- -D warnings
	luacheck -q .

# JSON against lua-cjson, the two in turn.
bench-json: setup-bench
	tools/bench-json.sh

# Echo servers in tasks against luv, cqueues and one epoll loop, in turn.
bench-echo: setup-bench
	tools/bench-echo.sh

# TLS clients against LuaSec, and TLS servers against LuaSec with copas and cqueues, in turn.
bench-tls: setup-bench
	tools/bench-tls.sh

# What an idle client of a server costs in memory, 10,000 of them, plain and over TLS.
bench-memory: setup-bench
	tools/serve-memory.sh

# Installs what is missing, or says what it is.
setup:
	tools/setup.sh test $(LUAS)

setup-demo:
	tools/setup.sh demo

setup-bench:
	tools/setup.sh bench lua5.4 luajit

clean:
	cargo clean
	rm -rf build lua-tests/lua55/target
