//! Links, addresses and routes over rtnetlink; the messages `nft` uses as well.
//!
//! A [`Socket`] belongs to the network namespace it was opened in and keeps
//! speaking to that one, whatever its thread does later. Everything here waits for
//! the kernel's answer, so a call that returns `Ok` has taken effect.
//!
//! Errors carry the kernel's number, and its own explanation where it gave one.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

mod message;
mod route;

pub use message::Message;
pub use route::{Address, Link, NewBridge, NewVeth, Route};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const HEADER: usize = 16;

/// A conversation with one of the kernel's netlink families, in one namespace.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
}

/// A family of netlink messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// Packet filtering and address translation.
    Netfilter,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            // Number zero, which is what naming none means.
            Family::Route => None,
            Family::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let descriptor = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&descriptor, &SocketAddrNetlink::new(0, 0))?;
        ask_for_explanations(descriptor.as_fd())?;
        Ok(Self { descriptor, sequence: 0 })
    }

    /// Opens a socket in the network namespace `namespace`.
    ///
    /// A thread goes there for as long as it takes; the caller stays where it is.
    ///
    /// # Errors
    ///
    /// What entering the namespace or opening the socket says.
    pub fn open_in(namespace: BorrowedFd<'_>, family: Family) -> io::Result<Self> {
        in_network_namespace(namespace, || Self::open(family))?
    }

    /// Sends one request and waits for the kernel to have carried it out.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn request(&mut self, message: Message) -> io::Result<()> {
        let sequence = self.next_sequence();
        self.send(&message.finish(sequence, true))?;
        self.collect(sequence, sequence, &mut |_, _| {})
    }

    /// Sends one request and hands each answer (its type and payload) to `each`.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn query(&mut self, message: Message, each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        let sequence = self.next_sequence();
        self.send(&message.finish(sequence, true))?;
        self.collect(sequence, sequence, each)
    }

    /// Sends several messages as one transaction: all take effect, or none.
    ///
    /// The first and last are what the family uses to open and close one; those are
    /// not acknowledged, the others are.
    ///
    /// # Errors
    ///
    /// The first refusal.
    pub(crate) fn transaction(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let last = messages.len().saturating_sub(1);
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut awaited = first;
        for (index, message) in messages.into_iter().enumerate() {
            let sequence = self.next_sequence();
            let inner = index != 0 && index != last;
            bytes.extend(message.finish(sequence, inner));
            if inner {
                awaited = sequence;
            }
        }
        self.send(&bytes)?;
        self.collect(first, awaited, &mut |_, _| {})
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::io::retry_on_intr(|| {
            rustix::net::sendto(&self.descriptor, bytes, SendFlags::empty(), &kernel)
        })?;
        Ok(())
    }

    /// Reads until the request numbered `last` has been answered in full, or one from
    /// `first` on was refused.
    fn collect(&self, first: u32, last: u32, each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0_u8; 64 << 10];
        loop {
            let (received, _) = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.descriptor, buffer.as_mut_slice(), RecvFlags::empty())
            })?;
            let mut rest = buffer.get(..received).unwrap_or_default();
            while let Some((header, payload, after)) = split(rest) {
                rest = after;
                // What is left of a refused transaction is of no interest any more.
                if header.sequence < first {
                    continue;
                }
                if let Some(error) = refusal(&header, payload) {
                    return Err(error);
                }
                match header.kind {
                    NLMSG_ERROR | NLMSG_DONE if header.sequence == last => return Ok(()),
                    NLMSG_ERROR | NLMSG_DONE => {}
                    kind => each(kind, payload),
                }
            }
        }
    }
}

/// Runs `act` in the network namespace `namespace`, on a thread that ends with it.
///
/// # Errors
///
/// What entering the namespace says, or that the thread could not be had.
pub fn in_network_namespace<T: Send>(
    namespace: BorrowedFd<'_>,
    act: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
            Ok(act())
        })?;
        match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// Takes the first message off `bytes`: its header, its payload, and what follows.
fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let header =
        Header { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)? };
    let payload = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((header, payload, after))
}

/// What a message says went wrong. An acknowledgment says nothing did.
fn refusal(header: &Header, payload: &[u8]) -> Option<io::Error> {
    if header.kind != NLMSG_ERROR {
        return None;
    }
    let number = i32::from_ne_bytes(*payload.first_chunk()?);
    if number == 0 {
        return None;
    }
    let error = io::Error::from_raw_os_error(number.checked_neg()?);
    Some(match explanation(header, payload) {
        Some(text) => io::Error::new(error.kind(), Explained { text, error }),
        None => error,
    })
}

/// An error of the kernel's, with the sentence the kernel gave for it.
#[derive(Debug, thiserror::Error)]
#[error("{text} ({error})")]
struct Explained {
    text: String,
    error: io::Error,
}

/// The kernel's number for an error of this module, explained or not.
#[must_use]
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let explained = error.get_ref()?.downcast_ref::<Explained>()?;
        explained.error.raw_os_error()
    })
}

/// The sentence that came with an error: attribute 1 after the echoed request.
fn explanation(header: &Header, payload: &[u8]) -> Option<String> {
    if header.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = payload.get(4..)?;
    let request = match header.flags & NLM_F_CAPPED {
        0 => usize::try_from(u32_at(echoed, 0)?).ok()?.next_multiple_of(4),
        _ => HEADER,
    };
    let text = message::attribute(echoed.get(request..)?, 1)?;
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Asks the kernel for sentences besides numbers, and not to echo whole requests.
fn ask_for_explanations(socket: BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    const NETLINK_CAP_ACK: libc::c_int = 10;
    const NETLINK_EXT_ACK: libc::c_int = 11;
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK] {
        // SAFETY: the pointer and length describe `on`, which outlives the call and is
        // only read; the descriptor is borrowed for the call.
        let answer = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                length,
            )
        };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?))
}
