//! Networks: a bridge each, and the containers that join it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::Path;

use carrack_linux::netlink::{Family, NewBridge, NewVeth, Socket};
use carrack_linux::nft::{self, Action, Chain, Match, Place, Rule, Table};
use ipnet::Ipv4Net;

use crate::error::{NetworkError, refused};
use crate::namespace;

/// The port on which containers of different networks may reach each other: that of
/// the tunnel, where mutual TLS decides who may.
const TUNNEL_PORT: u16 = 15008;

/// A network containers can join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// The bridge it is made of, a name of at most 15 bytes.
    pub bridge: String,
    /// The addresses in it.
    pub subnet: Ipv4Net,
    /// The host's own address in it, where containers send what is not for each other.
    pub gateway: Ipv4Addr,
    /// Let containers reach what the host reaches, under the host's address.
    pub masquerade: bool,
}

/// A container's place in a network.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// Where its network namespace is kept.
    pub namespace: &'a Path,
    /// The network it joins.
    pub network: &'a Network,
    /// Its address there.
    pub address: Ipv4Addr,
    /// What its interface is called inside, such as `eth0`.
    pub interface: &'a str,
    /// What the other end is called on the host, at most 15 bytes, used by nobody else.
    pub host_interface: &'a str,
    /// Its hardware address. [`hardware_address`] of its address is a good one, as a
    /// neighbor that remembers who had the address before then remembers no lie.
    pub mac: [u8; 6],
}

/// A hardware address made from an IPv4 address, unique wherever that is.
#[must_use]
pub fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // 02: unicast, administered locally.
    [0x02, 0xca, a, b, c, d]
}

/// Makes the network stand: bridge, gateway address, forwarding, masquerade.
///
/// Whatever of it stands already stays, so that containers on it notice nothing.
///
/// # Errors
///
/// [`NetworkError::Taken`] when the bridge's name belongs to another sort of link.
pub fn ensure(network: &Network) -> Result<(), NetworkError> {
    let mut route = open_route()?;
    let bridge = ensure_bridge(&mut route, network)?;
    // No IPv6 here, for the reason given in the namespaces' settings.
    namespace::set(&format!("ipv6/conf/{}/disable_ipv6", network.bridge), "1")
        .map_err(refused("turning off IPv6 on", &network.bridge))?;
    route
        .add_address(bridge, network.gateway, network.subnet.prefix_len())
        .map_err(refused("giving the gateway its address on", &network.bridge))?;
    route.set_up(bridge).map_err(refused("bringing up the bridge", &network.bridge))?;
    enable_forwarding()?;
    let mut filter = open_filter()?;
    nft::replace(&mut filter, &host_rules(network))
        .map_err(refused("setting the packet rules of", &network.bridge))
}

/// Takes the network down. That it is not there is no error.
///
/// # Errors
///
/// [`NetworkError::Taken`] when the bridge's name belongs to another sort of link,
/// which is left alone.
pub fn remove(network: &Network) -> Result<(), NetworkError> {
    let mut filter = open_filter()?;
    nft::remove(&mut filter, &table_name(&network.bridge))
        .map_err(refused("removing the packet rules of", &network.bridge))?;
    let mut route = open_route()?;
    match find_bridge(&mut route, &network.bridge)? {
        Some(bridge) => {
            route.delete_link(bridge).map_err(refused("removing the bridge", &network.bridge))
        }
        None => Ok(()),
    }
}

/// Gives a container its interface: made, addressed, up, with a default route.
///
/// If the host interface exists it is replaced, and with it the one inside.
///
/// # Errors
///
/// [`NetworkError::NoBridge`] when the network does not stand; nothing is left behind
/// by a failure.
pub fn attach(attachment: &Attachment<'_>) -> Result<(), NetworkError> {
    let mut route = open_route()?;
    let network = attachment.network;
    let bridge = find_bridge(&mut route, &network.bridge)?
        .ok_or_else(|| NetworkError::NoBridge { name: network.bridge.clone() })?;
    detach(attachment.host_interface)?;
    let namespace = namespace::open(attachment.namespace)?;
    let mtu = outward_mtu(&mut route)?;
    route
        .create_veth(NewVeth {
            name: attachment.host_interface,
            master: bridge,
            peer: attachment.interface,
            peer_hardware: Some(attachment.mac),
            peer_namespace: namespace.as_fd(),
            mtu,
        })
        .map_err(refused("making the interface", attachment.host_interface))?;
    let inside = Socket::open_in(namespace.as_fd(), Family::Route)
        .map_err(refused("speaking with the namespace of", attachment.host_interface));
    let dressed = inside.and_then(|mut inside| dress(&mut inside, attachment));
    if dressed.is_err() {
        // The first failure is the one to report.
        detach(attachment.host_interface).ok();
    }
    dressed
}

/// Takes away the interface whose end on the host is `host_interface`. That there is
/// none is no error.
///
/// # Errors
///
/// [`NetworkError::Refused`].
pub fn detach(host_interface: &str) -> Result<(), NetworkError> {
    let mut route = open_route()?;
    let link = route.link(host_interface).map_err(refused("looking for", host_interface))?;
    let Some(link) = link else { return Ok(()) };
    route.delete_link(link.index).map_err(refused("removing the interface", host_interface))
}

/// The subnets the host already has a way to, apart from the default route; for
/// [`crate::address::next_subnet`].
///
/// # Errors
///
/// [`NetworkError::Refused`].
pub fn routed() -> Result<Vec<Ipv4Net>, NetworkError> {
    let routes = open_route()?.routes().map_err(refused("listing routes of", "the host"))?;
    let subnets = routes.iter().filter(|route| route.prefix != 0);
    Ok(subnets.filter_map(|route| Ipv4Net::new(route.destination, route.prefix).ok()).collect())
}

fn dress(inside: &mut Socket, attachment: &Attachment<'_>) -> Result<(), NetworkError> {
    let name = attachment.interface;
    let link = inside
        .link(name)
        .and_then(|link| link.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
        .map_err(refused("finding inside the container the interface", name))?;
    inside
        .add_address(link.index, attachment.address, attachment.network.subnet.prefix_len())
        .map_err(refused("giving its address to", name))?;
    inside.set_up(link.index).map_err(refused("bringing up", name))?;
    inside
        .add_default_route(attachment.network.gateway)
        .map_err(refused("routing through the gateway by", name))
}

fn ensure_bridge(route: &mut Socket, network: &Network) -> Result<u32, NetworkError> {
    if let Some(bridge) = find_bridge(route, &network.bridge)? {
        return Ok(bridge);
    }
    let hardware = Some(hardware_address(network.gateway));
    match route.create_bridge(NewBridge { name: &network.bridge, hardware }) {
        // Somebody else made it in the meantime.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.map_err(refused("making the bridge", &network.bridge))?,
    }
    find_bridge(route, &network.bridge)?
        .ok_or_else(|| NetworkError::NoBridge { name: network.bridge.clone() })
}

fn find_bridge(route: &mut Socket, name: &str) -> Result<Option<u32>, NetworkError> {
    match route.link(name).map_err(refused("looking for", name))? {
        Some(link) if link.kind.as_deref() != Some("bridge") => {
            Err(NetworkError::Taken { name: name.to_owned() })
        }
        link => Ok(link.map(|link| link.index)),
    }
}

/// The largest packet of the link by which the host reaches everything else. Containers
/// use the same, so that what they send fits.
fn outward_mtu(route: &mut Socket) -> Result<Option<u32>, NetworkError> {
    let failed = || refused("finding the way out of", "the host");
    let routes = route.routes().map_err(failed())?;
    let Some(out) = routes.iter().find(|route| route.prefix == 0).and_then(|route| route.link)
    else {
        return Ok(None);
    };
    let links = route.links().map_err(failed())?;
    Ok(links.iter().find(|link| link.index == out).and_then(|link| link.mtu))
}

fn enable_forwarding() -> Result<(), NetworkError> {
    const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";
    if fs::read_to_string(SETTING).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    fs::write(SETTING, "1").map_err(refused("letting packets through by", SETTING))
}

fn table_name(bridge: &str) -> String {
    format!("carrack_{bridge}")
}

/// Containers reach out under the host's address. From outside the network only the
/// tunnel reaches in, besides answers.
fn host_rules(network: &Network) -> Table {
    let bridge = || network.bridge.clone();
    let (first, prefix) = (network.subnet.network(), network.subnet.prefix_len());
    let entering = || vec![Match::Into(bridge()), Match::NotFrom(bridge())];
    let with = |mut when: Vec<Match>, condition| {
        when.push(condition);
        when
    };
    let mut chains = vec![Chain {
        name: "entering",
        place: Place::FilterForwarded,
        rules: vec![
            Rule { when: with(entering(), Match::Established), then: Action::Accept },
            Rule { when: with(entering(), Match::TcpTo(TUNNEL_PORT)), then: Action::Accept },
            Rule { when: entering(), then: Action::Reject },
        ],
    }];
    if network.masquerade {
        chains.push(Chain {
            name: "leaving",
            place: Place::TranslateLeaving,
            rules: vec![Rule {
                when: vec![Match::Source(first, prefix), Match::NotInto(bridge())],
                then: Action::Masquerade,
            }],
        });
    }
    Table { name: table_name(&network.bridge), chains }
}

fn open_route() -> Result<Socket, NetworkError> {
    Socket::open(Family::Route).map_err(refused("opening a netlink socket for", "links"))
}

fn open_filter() -> Result<Socket, NetworkError> {
    Socket::open(Family::Netfilter).map_err(refused("opening a netlink socket for", "packet rules"))
}
