//! Files that are sent: opened by their path, or by the number that a Lua file has.

use std::ffi::OsStr;
use std::ffi::c_void;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;
use nix::sys::stat::fstat;
use nix::unistd::Whence;
use nix::unistd::lseek;

/// A path of any bytes.
pub fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

/// Opens a file for reading, without waiting for anybody: a pipe or a socket is refused.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    if kind.is_fifo() || kind.is_socket() {
        return Err(Errno::ESPIPE.into());
    }
    Ok(file)
}

/// The same open file under a number of its own.
pub fn of_number(number: RawFd) -> io::Result<File> {
    with_number(number, |fd| fd.try_clone_to_owned()).map(File::from)
}

/// Whether it is a regular file: neither a pipe nor a device, which may have to be waited for.
pub fn is_regular(number: RawFd) -> io::Result<bool> {
    let status = with_number(number, |fd| Ok(fstat(fd)?))?;
    Ok(SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG)
}

#[allow(unsafe_code, reason = "a number is all that Lua's files have to show")]
fn with_number<R>(number: RawFd, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
    if number < 0 {
        return Err(Errno::EBADF.into());
    }
    // SAFETY: it is borrowed for this call only, in which the kernel answers with EBADF if it is not open.
    call(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Where an open file stands in the kernel's eyes. Fails for what has no positions.
pub fn position(number: RawFd) -> io::Result<u64> {
    let position = with_number(number, |fd| Ok(lseek(fd, 0, Whence::SeekCur)?))?;
    u64::try_from(position).map_err(io::Error::other)
}

/// The descriptor of C's `FILE`.
///
/// # Safety
/// `file` is one that is open.
#[allow(unsafe_code, reason = "C's standard library has no safe face")]
pub unsafe fn number(file: *mut c_void) -> RawFd {
    // SAFETY: the caller's promise is handed on.
    unsafe { nix::libc::fileno(file.cast()) }
}

/// Bytes that C's `FILE` has read and not given yet. `None` where its parts are not known.
///
/// # Safety
/// `file` is one that is open.
#[allow(unsafe_code, reason = "C's standard library does not tell")]
pub unsafe fn buffered(file: *const c_void) -> Option<usize> {
    /// How it begins in glibc, whose programs rely on it (bits/types/struct_FILE.h).
    #[cfg(target_env = "gnu")]
    #[repr(C)]
    struct Parts {
        flags: std::ffi::c_int,
        read_ptr: *const u8,
        read_end: *const u8,
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: the caller's promise; both point into the same buffer, or are null.
    return Some(unsafe {
        let parts = &*file.cast::<Parts>();
        parts.read_end.addr().saturating_sub(parts.read_ptr.addr())
    });
    #[cfg(not(target_env = "gnu"))]
    None
}

/// One read at a position. 0: the file ends there.
pub fn read_at(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(room, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
