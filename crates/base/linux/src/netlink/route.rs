//! The requests of rtnetlink that a container's network is made with.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::message::attribute;
use super::{Message, Socket, errno, ipv4, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_DUMP: u16 = 0x300;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const ADDRESS_HEADER: usize = 8;
/// The address was given and not learned.
const IFA_F_PERMANENT: u8 = 0x80;
/// The address may be spoken to from anywhere.
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;

/// What is known about a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What sort of link it is (`bridge`, `veth`), where it says.
    pub kind: Option<String>,
    /// The number of the link it belongs to, such as its bridge.
    pub master: Option<u32>,
    /// Its largest packet.
    pub mtu: Option<u32>,
    /// Whether it has been brought up.
    pub up: bool,
}

/// A bridge to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewBridge<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address. Without one it takes on the lowest of its members', and
    /// changes as they come and go.
    pub hardware: Option<[u8; 6]>,
}

/// A pair of links to be made, one of them in another namespace.
#[derive(Clone, Copy, Debug)]
pub struct NewVeth<'a> {
    /// The name of the end that stays here, at most 15 bytes.
    pub name: &'a str,
    /// The bridge it joins.
    pub master: u32,
    /// Name of the other end.
    pub peer: &'a str,
    /// Hardware address of the other end.
    pub peer_hardware: Option<[u8; 6]>,
    /// Namespace of the other end.
    pub peer_namespace: BorrowedFd<'a>,
    /// Largest packet of both, or the kernel's choice.
    pub mtu: Option<u32>,
}

/// An address of a link, as the kernel keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    local: Option<Vec<u8>>,
    peer: Option<Vec<u8>>,
    broadcast: Option<Vec<u8>>,
}

/// Where packets for some destinations go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// First address of the destinations.
    pub destination: Ipv4Addr,
    /// Bits of it that count. Zero is the default route.
    pub prefix: u8,
    /// The next machine on the way, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// The link they leave by.
    pub link: Option<u32>,
}

impl Socket {
    /// Looks a link up by name.
    ///
    /// # Errors
    ///
    /// What the kernel answers, except that there is no such link: that is `None`.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut request = Message::new(RTM_GETLINK, 0, &link_header(0, 0, 0));
        request.text(IFLA_IFNAME, name);
        let mut found = None;
        match self.query(request, &mut |_, payload| found = found.take().or(read_link(payload))) {
            Ok(()) => Ok(found),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links of the namespace.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let request = Message::new(RTM_GETLINK, NLM_F_DUMP, &link_header(0, 0, 0));
        let mut links = Vec::new();
        self.query(request, &mut |_, payload| links.extend(read_link(payload)))?;
        Ok(links)
    }

    /// Makes a bridge.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when the name is taken, by whatever sort of link.
    pub fn create_bridge(&mut self, bridge: NewBridge<'_>) -> io::Result<()> {
        let mut request = creation();
        request.text(IFLA_IFNAME, bridge.name);
        if let Some(hardware) = bridge.hardware {
            request.bytes(IFLA_ADDRESS, &hardware);
        }
        request.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bridge");
        });
        self.request(request)
    }

    /// Makes a pair of links, brings the near end up and puts the far one in its
    /// namespace.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when either name is taken.
    pub fn create_veth(&mut self, veth: NewVeth<'_>) -> io::Result<()> {
        let namespace = u32::try_from(veth.peer_namespace.as_raw_fd()).map_err(io::Error::other)?;
        let fixed = link_header(0, IFF_UP, IFF_UP);
        let mut request = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &fixed);
        request.text(IFLA_IFNAME, veth.name).number(IFLA_MASTER, veth.master);
        if let Some(mtu) = veth.mtu {
            request.number(IFLA_MTU, mtu);
        }
        request.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, 0, 0)).text(IFLA_IFNAME, veth.peer);
                    peer.number(IFLA_NET_NS_FD, namespace);
                    if let Some(hardware) = veth.peer_hardware {
                        peer.bytes(IFLA_ADDRESS, &hardware);
                    }
                    if let Some(mtu) = veth.mtu {
                        peer.number(IFLA_MTU, mtu);
                    }
                });
            });
        });
        self.request(request)
    }

    /// Brings a link up.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn set_up(&mut self, link: u32) -> io::Result<()> {
        self.request(Message::new(RTM_NEWLINK, 0, &link_header(link, IFF_UP, IFF_UP)))
    }

    /// Removes a link; with one end of a pair goes the other.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn delete_link(&mut self, link: u32) -> io::Result<()> {
        self.request(Message::new(RTM_DELLINK, 0, &link_header(link, 0, 0)))
    }

    /// Moves a link into another namespace, where it has `name`.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when the name is taken there; what the kernel answers otherwise, such as
    /// for a link that belongs to one namespace for good.
    pub fn move_link(
        &mut self,
        link: u32,
        namespace: BorrowedFd<'_>,
        name: &str,
    ) -> io::Result<()> {
        let namespace = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
        let mut request = Message::new(RTM_NEWLINK, 0, &link_header(link, 0, 0));
        request.number(IFLA_NET_NS_FD, namespace).text(IFLA_IFNAME, name);
        self.request(request)
    }

    /// The global addresses that a link was given, of both kinds.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn addresses(&mut self, link: u32) -> io::Result<Vec<Address>> {
        let request = Message::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_HEADER]);
        let mut found = Vec::new();
        self.query(request, &mut |_, payload| found.extend(read_address(payload, link)))?;
        Ok(found)
    }

    /// Gives a link an address that another, or the same one elsewhere, has had.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn restore_address(&mut self, link: u32, address: &Address) -> io::Result<()> {
        let mut fixed = vec![address.family, address.prefix, 0, RT_SCOPE_UNIVERSE];
        fixed.extend_from_slice(&link.to_ne_bytes());
        let mut request = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        for (kind, value) in [
            (IFA_LOCAL, &address.local),
            (IFA_ADDRESS, &address.peer),
            (IFA_BROADCAST, &address.broadcast),
        ] {
            if let Some(value) = value {
                request.bytes(kind, value);
            }
        }
        self.request(request)
    }

    /// Gives a link an address. Giving it the same one twice is no error.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut fixed = vec![AF_INET, prefix, 0, 0];
        fixed.extend_from_slice(&link.to_ne_bytes());
        let mut request = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        request.bytes(IFA_LOCAL, &address.octets()).bytes(IFA_ADDRESS, &address.octets());
        self.request(request)
    }

    /// Sends everything that has no other route through `gateway`. Saying so twice is
    /// no error.
    ///
    /// # Errors
    ///
    /// What the kernel answers, such as that the gateway cannot be reached.
    pub fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        let fixed = [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
        let mut request = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        request.bytes(RTA_GATEWAY, &gateway.octets());
        self.request(request)
    }

    /// The namespace's IPv4 routes, those the kernel keeps for itself aside.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut fixed = [0; ROUTE_HEADER];
        fixed[0] = AF_INET;
        let mut routes = Vec::new();
        let request = Message::new(RTM_GETROUTE, NLM_F_DUMP, &fixed);
        self.query(request, &mut |_, payload| routes.extend(read_route(payload)))?;
        Ok(routes)
    }
}

fn creation() -> Message {
    Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_header(0, 0, 0))
}

/// The fixed part of a message about a link: family, type, index, flags and which of
/// them are meant.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    let values = [0, index, flags, change];
    for (place, value) in header.chunks_exact_mut(4).zip(values) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
    header
}

fn read_link(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(LINK_HEADER..)?;
    let number = |wanted| attribute(attributes, wanted).and_then(|value| u32_at(value, 0));
    let kind =
        attribute(attributes, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND));
    Some(Link {
        index: u32_at(payload, 4)?,
        name: text(attribute(attributes, IFLA_IFNAME)?),
        kind: kind.map(text),
        master: number(IFLA_MASTER),
        mtu: number(IFLA_MTU),
        up: u32_at(payload, 8)? & IFF_UP != 0,
    })
}

/// An address that moves with its link: global, and given for good.
fn read_address(payload: &[u8], link: u32) -> Option<Address> {
    let [family, prefix, flags, scope] = *payload.first_chunk::<4>()?;
    let global = scope == RT_SCOPE_UNIVERSE && flags & IFA_F_PERMANENT != 0;
    if !global || u32_at(payload, 4)? != link {
        return None;
    }
    let attributes = payload.get(ADDRESS_HEADER..)?;
    let bytes = |kind| attribute(attributes, kind).map(<[u8]>::to_vec);
    Some(Address {
        family,
        prefix,
        local: bytes(IFA_LOCAL),
        peer: bytes(IFA_ADDRESS),
        broadcast: bytes(IFA_BROADCAST),
    })
}

fn read_route(payload: &[u8]) -> Option<Route> {
    let [family, prefix, _, _, table, _, _, kind] = *payload.first_chunk::<8>()?;
    if (family, table, kind) != (AF_INET, RT_TABLE_MAIN, RTN_UNICAST) {
        return None;
    }
    let attributes = payload.get(ROUTE_HEADER..).unwrap_or_default();
    let destination = attribute(attributes, RTA_DST).and_then(ipv4);
    Some(Route {
        destination: destination.unwrap_or(Ipv4Addr::UNSPECIFIED),
        prefix,
        gateway: attribute(attributes, RTA_GATEWAY).and_then(ipv4),
        link: attribute(attributes, RTA_OIF).and_then(|value| u32_at(value, 0)),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}
