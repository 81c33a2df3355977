//! What the compiler expects every program to have: moving and comparing bytes, and a
//! place to go when the impossible happens.
//!
//! The loops read and write through volatile pointers, or the compiler would recognise
//! them and replace each by a call of itself.
#![expect(unsafe_code, reason = "these are the functions that slices are made of")]

use core::panic::PanicInfo;

/// # Safety
///
/// As in C: both areas have `count` bytes and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for at in 0..count {
        // SAFETY: `at` is below `count`, which the caller says is within `from`.
        let place = unsafe { from.add(at) };
        // SAFETY: as above.
        let byte = unsafe { place.read_volatile() };
        // SAFETY: `at` is below `count`, which the caller says is within `to`.
        let place = unsafe { to.add(at) };
        // SAFETY: as above.
        unsafe { place.write_volatile(byte) };
    }
    to
}

/// # Safety
///
/// As in C: the area has `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    for at in 0..count {
        // SAFETY: `at` is below `count`, which the caller says is within `to`.
        let place = unsafe { to.add(at) };
        // SAFETY: as above; C takes the low byte of the number.
        unsafe { place.write_volatile(byte.to_le_bytes()[0]) };
    }
    to
}

/// # Safety
///
/// As in C: both areas have `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: `at` is below `count`, which the caller says is within `one`.
        let place = unsafe { one.add(at) };
        // SAFETY: as above.
        let left = unsafe { place.read_volatile() };
        // SAFETY: `at` is below `count`, which the caller says is within `other`.
        let place = unsafe { other.add(at) };
        // SAFETY: as above.
        let right = unsafe { place.read_volatile() };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// # Safety
///
/// As [`memcmp`].
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(one, other, count) }
}

/// # Safety
///
/// As in C: the string ends in NUL.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut length = 0;
    loop {
        // SAFETY: no NUL was met before `length`, so this byte is within the string.
        let place = unsafe { string.add(length) };
        // SAFETY: as above.
        if unsafe { place.read_volatile() } == 0 {
            return length;
        }
        length += 1;
    }
}

/// Named by the tables that the compiler's own library has for unwinding. Nothing unwinds
/// here, so nobody calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    crate::say::line(&[b"carrack-init: it broke a promise to itself; please report this"]);
    crate::sys::exit(crate::FAILED)
}
