//! Counts all memory that the process takes from `malloc`, C libraries included, and aborts if an input takes too much.
//!
//! The functions here replace glibc's of the same names and call them. The allocation that exceeds the limit aborts the process,
//! so that the backtrace names the place, and libFuzzer keeps the input.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

/// Bytes held now, without those allocated in ways that are not counted.
static HELD: AtomicIsize = AtomicIsize::new(0);
/// Peak of the bytes held since the last reset.
static PEAK: AtomicIsize = AtomicIsize::new(0);
/// Limit of the bytes held.
static ALLOWED: AtomicIsize = AtomicIsize::new(isize::MAX);
/// Peak over all inputs; printed each time that it grows by a tenth.
static WORST: AtomicUsize = AtomicUsize::new(1 << 20);

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(at: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    fn __libc_free(at: *mut c_void);
    fn malloc_usable_size(at: *mut c_void) -> usize;
}

/// Calls a function that may hold `allowed` bytes more than are held now.
pub(crate) fn watched(allowed: usize, input: usize, function: impl FnOnce()) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    ALLOWED.store(before.saturating_add_unsigned(allowed), Relaxed);
    function();
    ALLOWED.store(isize::MAX, Relaxed);
    let took = usize::try_from(PEAK.load(Relaxed) - before).unwrap_or(0);
    if took > WORST.load(Relaxed).saturating_mul(11) / 10 {
        WORST.store(took, Relaxed);
        eprintln!("memory: {took} bytes for an input of {input}, of {allowed} allowed");
    }
}

/// Aborts the process if this many more bytes exceed the limit.
fn before_taking(size: usize) {
    let would_hold = HELD.load(Relaxed).saturating_add_unsigned(size);
    if would_hold > ALLOWED.load(Relaxed) {
        // Printing may need memory.
        let allowed = ALLOWED.swap(isize::MAX, Relaxed);
        eprintln!("MEMORY: {size} bytes more would be {would_hold}, and {allowed} are allowed");
        std::process::abort();
    }
}

fn taken(at: *mut c_void) -> *mut c_void {
    // SAFETY: the pointer was just returned by glibc, or is null, for which the size is 0.
    let size = unsafe { malloc_usable_size(at) };
    let held = HELD.fetch_add(size.cast_signed(), Relaxed) + size.cast_signed();
    PEAK.fetch_max(held, Relaxed);
    at
}

fn given_back(at: *mut c_void) {
    // SAFETY: the caller got the pointer from a function of this module or from glibc and frees it now.
    let size = unsafe { malloc_usable_size(at) };
    HELD.fetch_sub(size.cast_signed(), Relaxed);
}

// SAFETY: the functions below have the names, the types and the behaviour of the C library's, which they call.

#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    before_taking(size);
    // SAFETY: any size is allowed.
    taken(unsafe { __libc_malloc(size) })
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    before_taking(count.saturating_mul(size));
    // SAFETY: any sizes are allowed.
    taken(unsafe { __libc_calloc(count, size) })
}

/// # Safety
/// As `realloc` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(at: *mut c_void, size: usize) -> *mut c_void {
    given_back(at);
    before_taking(size);
    // SAFETY: the caller fulfils the contract.
    let new = unsafe { __libc_realloc(at, size) };
    if new.is_null() && size > 0 {
        taken(at);
        return new;
    }
    taken(new)
}

#[unsafe(no_mangle)]
extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    before_taking(size);
    // SAFETY: glibc refuses a bad alignment.
    taken(unsafe { __libc_memalign(align, size) })
}

#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    memalign(align, size)
}

/// # Safety
/// As `posix_memalign` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(to: *mut *mut c_void, align: usize, size: usize) -> c_int {
    let at = memalign(align, size);
    if at.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller passes a valid pointer for the result.
    unsafe { to.write(at) };
    0
}

/// # Safety
/// As `free` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn free(at: *mut c_void) {
    given_back(at);
    // SAFETY: the caller fulfils the contract.
    unsafe { __libc_free(at) }
}
