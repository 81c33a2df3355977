//! Choosing addresses and subnets that are free. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Where subnets come from unless someone says otherwise.
pub const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 89, 0, 0), 16);

/// How large each of them is: 253 containers.
pub const SUBNET_PREFIX: u8 = 24;

/// The address a subnet's gateway has: its first.
#[must_use]
pub fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(1))
}

/// The first free address after `after`, going around at the end of the subnet.
///
/// Giving the address chosen last as `after` keeps one that was just freed from being
/// given to somebody else while others still remember whose it was. The subnet's own
/// address, its gateway and its broadcast address are never chosen. `None` when every
/// address is taken.
#[must_use]
pub fn next(
    subnet: Ipv4Net,
    taken: &BTreeSet<Ipv4Addr>,
    after: Option<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let first = gateway(subnet).to_bits().checked_add(1)?;
    let last = subnet.broadcast().to_bits().checked_sub(1)?;
    if first > last {
        return None;
    }
    let start = match after {
        Some(after) if subnet.contains(&after) && (first..last).contains(&after.to_bits()) => {
            after.to_bits() + 1
        }
        _ => first,
    };
    (start..=last).chain(first..start).map(Ipv4Addr::from_bits).find(|free| !taken.contains(free))
}

/// The first subnet of `pool`, `prefix` bits long, that overlaps none of `taken`.
#[must_use]
pub fn next_subnet(pool: Ipv4Net, prefix: u8, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
    pool.subnets(prefix).ok()?.find(|free| !taken.iter().any(|used| overlaps(free, used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().expect("a subnet")
    }

    #[track_caller]
    fn check(subnet: &str, taken: &[&str], after: Option<&str>, expected: Option<&str>) {
        let address = |text: &&str| text.parse::<Ipv4Addr>().expect("an address");
        let taken = taken.iter().map(address).collect();
        let chosen = next(net(subnet), &taken, after.as_ref().map(address));
        assert_eq!(chosen, expected.as_ref().map(address), "in {subnet}");
    }

    #[test]
    fn the_first_address_is_the_gateways_and_the_next_the_first_container_s() {
        assert_eq!(gateway(net("10.89.4.0/24")), Ipv4Addr::new(10, 89, 4, 1));
        check("10.89.4.0/24", &[], None, Some("10.89.4.2"));
    }

    #[test]
    fn an_address_freed_a_moment_ago_is_not_the_next_to_be_given() {
        check("10.89.4.0/24", &["10.89.4.2"], Some("10.89.4.3"), Some("10.89.4.4"));
    }

    #[test]
    fn choosing_goes_around_at_the_end() {
        check("10.0.0.0/29", &["10.0.0.2"], Some("10.0.0.6"), Some("10.0.0.3"));
        check("10.0.0.0/29", &[], Some("10.0.0.5"), Some("10.0.0.6"));
    }

    #[test]
    fn a_full_subnet_has_nothing_left() {
        check("10.0.0.0/30", &["10.0.0.2"], None, None);
        check("10.0.0.0/30", &["10.0.0.2"], Some("10.0.0.2"), None);
        check("10.0.0.0/31", &[], None, None);
        check("10.0.0.0/32", &[], None, None);
    }

    #[test]
    fn an_address_from_elsewhere_does_not_confuse_the_choice() {
        check("10.0.0.0/29", &[], Some("192.168.0.1"), Some("10.0.0.2"));
        check("255.255.255.0/24", &[], None, Some("255.255.255.2"));
    }

    #[test]
    fn subnets_that_the_host_already_routes_are_passed_over() {
        let taken = [net("10.89.0.0/23"), net("10.89.2.128/25"), net("192.168.0.0/16")];
        assert_eq!(next_subnet(POOL, 24, &taken), Some(net("10.89.3.0/24")));
        assert_eq!(next_subnet(POOL, 24, &[net("10.0.0.0/8")]), None);
    }
}
