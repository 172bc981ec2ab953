//! Attaching an open file to a loop device.
//!
//! The one place in this room that needs `unsafe`: nix has no safe wrapper for these two ioctls.
//! The device is read-only and frees itself with its last user; nothing here is ever detached.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// `struct loop_info64` of the kernel's interface.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of the kernel's interface.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;

nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, Config);

/// An attached loop device; dropping it leaves the device to whoever mounted it.
#[derive(Debug)]
pub(crate) struct Loop {
    /// Such as `/dev/loop0`.
    pub(crate) device: String,
    _open: File,
}

/// Attaches this very file, so that what was checked is what gets mounted.
pub(crate) fn attach(file: &File) -> io::Result<Loop> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let mut attempts = 0_u32;
    loop {
        // SAFETY: takes no pointer; `control` is open for the whole call.
        let number = unsafe { loop_ctl_get_free(control.as_raw_fd()) }?;
        let device = format!("/dev/loop{number}");
        let open = File::open(&device)?;
        let config = Config {
            fd,
            block_size: 0,
            info: Info {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: 0,
                size_limit: 0,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags: READ_ONLY | AUTOCLEAR,
                file_name: [0; 64],
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        // SAFETY: `config` is laid out as the kernel's `struct loop_config` and outlives the
        // call, which only reads it; both descriptors are open.
        match unsafe { loop_configure(open.as_raw_fd(), &raw const config) } {
            Ok(_) => {
                return Ok(Loop {
                    device,
                    _open: open,
                });
            }
            // Somebody took the device between the two calls: the next one then.
            Err(Errno::EBUSY) if attempts < 8 => attempts = attempts.saturating_add(1),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes that the kernel's header gives on every 64-bit machine.
    #[test]
    fn layout_is_the_kernels() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
        assert_eq!(std::mem::offset_of!(Info, file_name), 56);
    }
}
