//! Seals on memory files: once sealed, their bytes can no longer change.
//!
//! Owns the retry. It must never report a file as sealed that is not.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;

/// The kernel waits for some 150 ms itself (`memfd_wait_for_pins` in its `mm/memfd.c`) before it refuses.
const TRIES_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Seals a memory file against writing, growing and shrinking, and adds further seals.
///
/// The kernel refuses with EBUSY while it holds a page of the file itself, as it does for a moment on a busy machine; the seal is
/// then tried again, for some seconds at most.
///
/// # Errors
/// When the system refuses for another reason, or goes on to.
pub(crate) fn seal(file: impl AsFd, more: SealFlags) -> io::Result<()> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | more;
    for _ in 1..TRIES_MAX {
        match fcntl_add_seals(&file, seals) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            done => return Ok(done?),
        }
    }
    Ok(fcntl_add_seals(&file, seals)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    /// A shared mapping that can be written is one reason for the kernel to refuse, and one that a test can make.
    #[test]
    #[expect(unsafe_code, reason = "no safe wrapper maps a file")]
    fn a_seal_that_is_refused_for_a_moment_is_tried_again() {
        let mut file = File::from(memfd_create("spanwatch-test", MemfdFlags::ALLOW_SEALING).expect("memory"));
        file.write_all(b"bytes").expect("write");
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: maps one page of this file at an address that the kernel chooses.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4_096, access, kind, file.as_raw_fd(), 0) };
        assert_ne!(page, libc::MAP_FAILED);
        let page = page as usize;
        let refused = fcntl_add_seals(&file, SealFlags::WRITE);
        assert_eq!(refused, Err(Errno::BUSY));
        let unmapping = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            // SAFETY: the page that was mapped above, to which nothing refers.
            assert_eq!(unsafe { libc::munmap(page as *mut libc::c_void, 4_096) }, 0);
        });
        seal(&file, SealFlags::SEAL).expect("sealed in the end");
        unmapping.join().expect("unmapped");
        file.write_all(b"more").expect_err("not for writing");
    }
}
