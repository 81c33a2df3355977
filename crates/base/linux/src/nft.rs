//! Packet rules: tables of nf_tables, written whole and swapped in at once.
//!
//! A [`Table`] is plain data. [`replace`] puts it in place of whatever table had its
//! name, in one transaction, so that no packet ever meets half of it and doing it
//! twice is doing it once. No program is run.
//!
//! The rules are IPv4's, and only those a container's network is made with.

use std::io;
use std::net::Ipv4Addr;

use crate::netlink::{Message, Socket};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const FAMILY_IPV4: u8 = 2;
const REGISTER: u32 = 1;
const INTERFACE_NAME_LENGTH: usize = 16;
const PROTOCOL_TCP: u8 = 6;

/// A table: a name, and chains of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name among the namespace's IPv4 tables.
    pub name: String,
    /// What is in it.
    pub chains: Vec<Chain>,
}

/// Rules at one place on a packet's way. Packets that match none go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name in its table.
    pub name: &'static str,
    /// Where packets meet it.
    pub place: Place,
    /// Tried in order.
    pub rules: Vec<Rule>,
}

/// Where on its way a packet meets a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// New connections that arrive from a link, before routing.
    TranslateArriving,
    /// New connections made on this machine.
    TranslateLocal,
    /// New connections that leave, after routing.
    TranslateLeaving,
    /// Packets on their way from one link to another.
    FilterForwarded,
}

/// What to do with packets that match everything in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All of these have to match.
    pub when: Vec<Match>,
    /// What happens to packets that do.
    pub then: Action,
}

/// Something about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It carries this mark.
    Mark(u32),
    /// It is TCP.
    Tcp,
    /// It is TCP to this port.
    TcpTo(u16),
    /// It came in by the link of this name.
    From(String),
    /// It did not come in by the link of this name.
    NotFrom(String),
    /// It leaves by the link of this name.
    Into(String),
    /// It does not leave by the link of this name.
    NotInto(String),
    /// Its source is among these addresses.
    Source(Ipv4Addr, u8),
    /// Its destination is among these addresses.
    Destination(Ipv4Addr, u8),
    /// It belongs to, or is caused by, a connection already let through.
    Established,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It leaves this chain unchanged.
    Return,
    /// It passes.
    Accept,
    /// It is answered with "administratively prohibited".
    Reject,
    /// It goes to this port of this machine.
    RedirectTo(u16),
    /// It takes the address of the link it leaves by.
    Masquerade,
}

/// Puts `table` in the place of the table of its name, if there is one.
///
/// # Errors
///
/// What the kernel answers; nothing has changed then.
pub fn replace(socket: &mut Socket, table: &Table) -> io::Result<()> {
    let mut messages = removal(&table.name);
    messages.extend(creation(table, 0)?);
    commit(socket, messages)
}

/// Puts `table` where no table has its name, or else [`replace`]s that one.
///
/// For a namespace that is new. Removing even a table that is not there makes the kernel wait,
/// when the socket is closed, until every processor has forgotten it.
///
/// # Errors
///
/// What the kernel answers; nothing has changed then.
pub fn create(socket: &mut Socket, table: &Table) -> io::Result<()> {
    match commit(socket, creation(table, NLM_F_EXCL)?) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => replace(socket, table),
        outcome => outcome,
    }
}

fn creation(table: &Table, flags: u16) -> io::Result<Vec<Message>> {
    let mut messages = vec![table_message(NEW_TABLE, flags, &table.name)];
    for chain in &table.chains {
        messages.push(chain_message(&table.name, chain));
        for rule in &chain.rules {
            messages.push(rule_message(&table.name, chain.name, rule)?);
        }
    }
    Ok(messages)
}

/// Removes the table `name`. That there is none is no error.
///
/// # Errors
///
/// What the kernel answers.
pub fn remove(socket: &mut Socket, name: &str) -> io::Result<()> {
    commit(socket, removal(name))
}

/// Deleting what is not there is an error to the kernel, so it is made first.
fn removal(name: &str) -> Vec<Message> {
    vec![table_message(NEW_TABLE, 0, name), table_message(DELETE_TABLE, 0, name)]
}

fn commit(socket: &mut Socket, inner: Vec<Message>) -> io::Result<()> {
    let edge = |kind| Message::new(kind, 0, &[0, 0, 0, 10]);
    let mut messages = vec![edge(BATCH_BEGIN)];
    messages.extend(inner);
    messages.push(edge(BATCH_END));
    socket.transaction(messages)
}

fn message(kind: u16, flags: u16) -> Message {
    Message::new(kind, flags, &[FAMILY_IPV4, 0, 0, 0])
}

fn table_message(kind: u16, flags: u16, name: &str) -> Message {
    let create = if kind == NEW_TABLE { NLM_F_CREATE } else { 0 };
    let mut message = message(kind, create | flags);
    message.text(1, name);
    message
}

fn chain_message(table: &str, chain: &Chain) -> Message {
    let (hook, priority, kind) = match chain.place {
        Place::TranslateArriving => (0, -100, "nat"),
        Place::TranslateLocal => (3, -100, "nat"),
        Place::TranslateLeaving => (4, 100, "nat"),
        Place::FilterForwarded => (2, 0_i32, "filter"),
    };
    let mut message = message(NEW_CHAIN, NLM_F_CREATE);
    message.text(1, table).text(3, chain.name);
    message.nested(4, |place| {
        place.network_number(1, hook).network_number(2, priority.cast_unsigned());
    });
    message.text(7, kind);
    message
}

fn rule_message(table: &str, chain: &str, rule: &Rule) -> io::Result<Message> {
    let mut expressions = Vec::new();
    for condition in &rule.when {
        condition.compile(&mut expressions)?;
    }
    rule.then.compile(&mut expressions);
    let mut message = message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND);
    message.text(1, table).text(2, chain);
    message.nested(4, |list| {
        for expression in &expressions {
            list.nested(1, |element| expression.write(element));
        }
    });
    Ok(message)
}

/// One step of the kernel's small machine. Values pass through its first register.
enum Expression {
    LoadMeta(u32),
    LoadConnectionState,
    LoadPayload { base: u32, offset: u32, length: u32 },
    Mask(Vec<u8>),
    Compare { equal: bool, value: Vec<u8> },
    Set(Vec<u8>),
    Verdict(i32),
    Redirect,
    Masquerade,
    Reject,
}

const META_MARK: u32 = 3;
const META_IN_NAME: u32 = 6;
const META_OUT_NAME: u32 = 7;
const META_PROTOCOL: u32 = 16;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const STATE_ESTABLISHED_OR_RELATED: u32 = 2 | 4;

impl Match {
    fn compile(&self, into: &mut Vec<Expression>) -> io::Result<()> {
        match self {
            Self::Mark(mark) => {
                into.extend([Expression::LoadMeta(META_MARK), equal(mark.to_ne_bytes())]);
            }
            Self::Tcp => into.extend(is_tcp()),
            Self::TcpTo(port) => {
                into.extend(is_tcp());
                into.push(Expression::LoadPayload { base: BASE_TRANSPORT, offset: 2, length: 2 });
                into.push(equal(port.to_be_bytes()));
            }
            Self::From(name) => into.extend(interface(META_IN_NAME, name, true)?),
            Self::NotFrom(name) => into.extend(interface(META_IN_NAME, name, false)?),
            Self::Into(name) => into.extend(interface(META_OUT_NAME, name, true)?),
            Self::NotInto(name) => into.extend(interface(META_OUT_NAME, name, false)?),
            Self::Source(address, prefix) => into.extend(among(12, *address, *prefix)),
            Self::Destination(address, prefix) => into.extend(among(16, *address, *prefix)),
            Self::Established => into.extend([
                Expression::LoadConnectionState,
                Expression::Mask(STATE_ESTABLISHED_OR_RELATED.to_ne_bytes().to_vec()),
                Expression::Compare { equal: false, value: vec![0; 4] },
            ]),
        }
        Ok(())
    }
}

impl Action {
    fn compile(self, into: &mut Vec<Expression>) {
        match self {
            Self::Return => into.push(Expression::Verdict(-5)),
            Self::Accept => into.push(Expression::Verdict(1)),
            Self::Reject => into.push(Expression::Reject),
            Self::RedirectTo(port) => {
                into.extend([Expression::Set(port.to_be_bytes().to_vec()), Expression::Redirect]);
            }
            Self::Masquerade => into.push(Expression::Masquerade),
        }
    }
}

fn equal(value: impl Into<Vec<u8>>) -> Expression {
    Expression::Compare { equal: true, value: value.into() }
}

fn is_tcp() -> [Expression; 2] {
    [Expression::LoadMeta(META_PROTOCOL), equal([PROTOCOL_TCP])]
}

fn interface(key: u32, name: &str, is: bool) -> io::Result<[Expression; 2]> {
    if name.len() >= INTERFACE_NAME_LENGTH || name.contains('\0') {
        let message = format!("`{name}` cannot be the name of a network interface");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut value = name.as_bytes().to_vec();
    value.resize(INTERFACE_NAME_LENGTH, 0);
    Ok([Expression::LoadMeta(key), Expression::Compare { equal: is, value }])
}

fn among(offset: u32, address: Ipv4Addr, prefix: u8) -> [Expression; 3] {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
    [
        Expression::LoadPayload { base: BASE_NETWORK, offset, length: 4 },
        Expression::Mask(mask.to_be_bytes().to_vec()),
        equal((address.to_bits() & mask).to_be_bytes()),
    ]
}

/// Writes what an expression consists of into its message.
type Body = Box<dyn FnOnce(&mut Message)>;

impl Expression {
    fn write(&self, element: &mut Message) {
        let data = |value: &Vec<u8>| {
            let value = value.clone();
            move |data: &mut Message| {
                data.bytes(1, &value);
            }
        };
        let (name, body): (_, Body) = match self {
            Self::LoadMeta(key) => ("meta", numbers([(2, *key), (1, REGISTER)])),
            Self::LoadConnectionState => ("ct", numbers([(2, 0), (1, REGISTER)])),
            Self::LoadPayload { base, offset, length } => {
                ("payload", numbers([(1, REGISTER), (2, *base), (3, *offset), (4, *length)]))
            }
            Self::Mask(mask) => ("bitwise", mask_body(mask)),
            Self::Compare { equal, value } => {
                let (operation, value) = (u32::from(!*equal), data(value));
                (
                    "cmp",
                    Box::new(move |body| {
                        body.network_number(1, REGISTER)
                            .network_number(2, operation)
                            .nested(3, value);
                    }),
                )
            }
            Self::Set(value) => {
                let value = data(value);
                (
                    "immediate",
                    Box::new(move |body| {
                        body.network_number(1, REGISTER).nested(2, value);
                    }),
                )
            }
            Self::Verdict(code) => ("immediate", verdict_body(*code)),
            // The flag says that a port was given.
            Self::Redirect => ("redir", numbers([(1, REGISTER), (2, REGISTER), (3, 2)])),
            Self::Masquerade => ("masq", numbers([])),
            Self::Reject => ("reject", reject_body()),
        };
        element.text(1, name).nested(2, body);
    }
}

fn numbers<const N: usize>(values: [(u16, u32); N]) -> Body {
    Box::new(move |body| {
        for (attribute, value) in values {
            body.network_number(attribute, value);
        }
    })
}

fn mask_body(mask: &[u8]) -> Body {
    let mask = mask.to_vec();
    Box::new(move |body| {
        body.network_number(1, REGISTER).network_number(2, REGISTER);
        body.network_number(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
        body.nested(4, |data| {
            data.bytes(1, &mask);
        });
        body.nested(5, |data| {
            data.bytes(1, &vec![0; mask.len()]);
        });
    })
}

fn verdict_body(code: i32) -> Body {
    Box::new(move |body| {
        body.network_number(1, 0).nested(2, |data| {
            data.nested(2, |verdict| {
                verdict.network_number(1, code.cast_unsigned());
            });
        });
    })
}

/// ICMP unreachable, code "administratively prohibited".
fn reject_body() -> Body {
    Box::new(|body| {
        body.network_number(1, 0).bytes(2, &[13]);
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::process::Command;

    use super::*;
    use crate::netlink::Family;

    /// A network namespace of its own, gone with the descriptor; `None` without root.
    fn namespace() -> Option<OwnedFd> {
        let made = std::thread::spawn(|| {
            // SAFETY: the new network namespace concerns this short thread only.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
            Ok::<_, io::Error>(OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net")?))
        });
        match made.join().expect("no panic") {
            Ok(namespace) => Some(namespace),
            Err(error) => {
                eprintln!("skipped: a network namespace cannot be made here: {error}");
                None
            }
        }
    }

    fn listing(namespace: &OwnedFd) -> String {
        crate::netlink::in_network_namespace(namespace.as_fd(), || {
            let listed = Command::new("nft").args(["list", "ruleset"]).output().expect("nft runs");
            String::from_utf8(listed.stdout).expect("text")
        })
        .expect("entered")
    }

    fn every_kind() -> Table {
        let rule = |when, then| Rule { when, then };
        Table {
            name: String::from("proof"),
            chains: vec![
                Chain {
                    name: "local",
                    place: Place::TranslateLocal,
                    rules: vec![
                        rule(vec![Match::Mark(0x539)], Action::Return),
                        rule(vec![Match::Destination(Ipv4Addr::LOCALHOST, 8)], Action::Return),
                        rule(vec![Match::Tcp], Action::RedirectTo(15001)),
                    ],
                },
                Chain {
                    name: "arriving",
                    place: Place::TranslateArriving,
                    rules: vec![
                        rule(vec![Match::From("lo".into())], Action::Return),
                        rule(vec![Match::TcpTo(15008)], Action::Return),
                    ],
                },
                Chain {
                    name: "leaving",
                    place: Place::TranslateLeaving,
                    rules: vec![rule(
                        vec![
                            Match::Source(Ipv4Addr::new(10, 89, 3, 0), 26),
                            Match::NotInto("br0".into()),
                        ],
                        Action::Masquerade,
                    )],
                },
                Chain {
                    name: "forwarded",
                    place: Place::FilterForwarded,
                    rules: vec![
                        rule(vec![Match::Established], Action::Accept),
                        rule(
                            vec![Match::Into("br0".into()), Match::NotFrom("br0".into())],
                            Action::Reject,
                        ),
                    ],
                },
            ],
        }
    }

    #[test]
    fn the_kernel_reads_every_kind_of_rule_as_it_was_meant() {
        let Some(namespace) = namespace() else { return };
        let mut socket = Socket::open_in(namespace.as_fd(), Family::Netfilter).expect("socket");
        replace(&mut socket, &every_kind()).expect("replaced");
        let shown = listing(&namespace);
        for line in [
            "meta mark 0x00000539 return",
            "ip daddr 127.0.0.0/8 return",
            "redirect to :15001",
            "iifname \"lo\" return",
            "tcp dport 15008 return",
            "ip saddr 10.89.3.0/26 oifname != \"br0\" masquerade",
            "ct state established,related accept",
            "oifname \"br0\" iifname != \"br0\" reject with icmp admin-prohibited",
            "type nat hook output priority -100",
            "type nat hook prerouting priority dstnat",
            "type nat hook postrouting priority srcnat",
            "type filter hook forward priority filter",
        ] {
            assert!(shown.contains(line), "`{line}` is missing from\n{shown}");
        }
    }

    #[test]
    fn replacing_a_table_twice_leaves_one_and_removing_it_twice_leaves_none() {
        let Some(namespace) = namespace() else { return };
        let mut socket = Socket::open_in(namespace.as_fd(), Family::Netfilter).expect("socket");
        replace(&mut socket, &every_kind()).expect("once");
        let once = listing(&namespace);
        replace(&mut socket, &every_kind()).expect("twice");
        assert_eq!(listing(&namespace), once);
        remove(&mut socket, "proof").expect("removed");
        remove(&mut socket, "proof").expect("removed again");
        assert_eq!(listing(&namespace), "");
    }

    #[test]
    fn a_refused_table_leaves_the_old_one_and_a_usable_socket() {
        let Some(namespace) = namespace() else { return };
        let mut socket = Socket::open_in(namespace.as_fd(), Family::Netfilter).expect("socket");
        replace(&mut socket, &every_kind()).expect("good");
        let good = listing(&namespace);
        let mut bad = every_kind();
        // Masquerading has no meaning before routing.
        bad.chains[0].rules[0].then = Action::Masquerade;
        replace(&mut socket, &bad).expect_err("refused");
        assert_eq!(listing(&namespace), good);
        replace(&mut socket, &every_kind()).expect("good again");
    }
}
