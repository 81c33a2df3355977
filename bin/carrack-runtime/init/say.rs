//! Lines on standard error.

use crate::sys::{self, Errno};

const LINE: usize = 512;

/// Writes one line, in one call where it fits, so that it is not torn apart.
pub(crate) fn line(parts: &[&[u8]]) {
    let mut buffer = [0_u8; LINE];
    let mut end = 0;
    for part in parts.iter().copied().chain([b"\n".as_slice()]) {
        if part.len() > LINE - end {
            sys::write(sys::STDERR, buffer.get(..end).unwrap_or_default());
            end = 0;
        }
        match buffer.get_mut(end..end + part.len()) {
            Some(place) => {
                place.copy_from_slice(part);
                end += part.len();
            }
            None => sys::write(sys::STDERR, part),
        }
    }
    sys::write(sys::STDERR, buffer.get(..end).unwrap_or_default());
}

/// What was attempted, on what, and what the system answered.
pub(crate) fn failure(attempt: &[u8], object: &[u8], errno: Errno) {
    let mut digits = [0; 10];
    let reason = match errno.reason() {
        Some(reason) => reason.as_bytes(),
        None => decimal(errno.number(), &mut digits),
    };
    line(&[b"carrack-init: ", attempt, object, b": ", reason]);
}

fn decimal(number: i32, digits: &mut [u8; 10]) -> &[u8] {
    const PREFIX: &[u8; 6] = b"error ";
    let (mut at, mut rest) = (digits.len(), number.unsigned_abs());
    while at > PREFIX.len() {
        at -= 1;
        // An error number has four digits at most (MAX_ERRNO is 4095).
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let start = at - PREFIX.len();
    digits[start..at].copy_from_slice(PREFIX);
    &digits[start..]
}
