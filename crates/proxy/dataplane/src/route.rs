//! What the kernel's routes say about an address, in the network namespace of this thread.

use std::fs;
use std::net::Ipv4Addr;

/// Whether the address is on a link of ours and is not a gateway.
///
/// What cannot be read counts as a neighbor: the caller then refuses rather than sends in clear.
pub(crate) fn is_neighbor(address: Ipv4Addr) -> bool {
    match fs::read_to_string("/proc/thread-self/net/route") {
        Ok(table) => is_neighbor_by(&table, address),
        Err(_) => true,
    }
}

fn is_neighbor_by(table: &str, address: Ipv4Addr) -> bool {
    let routes: Vec<_> = table.lines().skip(1).filter_map(Route::parse).collect();
    let is_gateway = routes.iter().any(|route| route.gateway == address);
    let on_link = routes.iter().any(|route| {
        route.gateway.is_unspecified()
            && route.mask != 0
            && u32::from(address) & route.mask == u32::from(route.network)
    });
    on_link && !is_gateway
}

/// One line of the kernel's table, whose numbers are addresses in memory order.
struct Route {
    network: Ipv4Addr,
    gateway: Ipv4Addr,
    mask: u32,
}

impl Route {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1);
        let network = number(words.next()?)?;
        let gateway = number(words.next()?)?;
        let mask = number(words.nth(4)?)?;
        Some(Self { network, gateway, mask: u32::from(mask) })
    }
}

fn number(word: &str) -> Option<Ipv4Addr> {
    u32::from_str_radix(word, 16).ok().map(|number| Ipv4Addr::from(number.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    const TABLE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100590A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000590A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn a_neighbor_is_on_the_link_and_not_the_gateway() {
        assert!(is_neighbor_by(TABLE, Ipv4Addr::new(10, 89, 0, 7)));
        assert!(!is_neighbor_by(TABLE, Ipv4Addr::new(10, 89, 0, 1)));
        assert!(!is_neighbor_by(TABLE, Ipv4Addr::new(192, 0, 2, 1)));
    }
}
