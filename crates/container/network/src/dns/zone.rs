//! The names of one network at one moment. Pure.

use std::collections::HashMap;
use std::net::Ipv4Addr;

/// Which names there are, and which we would know if there were.
///
/// Names are compared without regard to case and to a dot at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    names: HashMap<String, Vec<Ipv4Addr>>,
    addresses: HashMap<Ipv4Addr, String>,
    domains: Vec<String>,
}

/// What a zone says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// It has these addresses.
    Addresses(&'a [Ipv4Addr]),
    /// There is no such name, and nobody else would know of one.
    Absent,
    /// Somebody else has to be asked.
    Elsewhere,
}

impl Zone {
    /// A zone without names that has the last word on all names under `domains`, and
    /// on those of a single label.
    #[must_use]
    pub fn new(domains: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let domains = domains.into_iter().map(|domain| normal(domain.as_ref())).collect();
        Self { domains, ..Self::default() }
    }

    /// Adds an address to a name.
    pub fn insert(&mut self, name: &str, address: Ipv4Addr) {
        let name = normal(name);
        self.addresses.entry(address).or_insert_with(|| name.clone());
        let addresses = self.names.entry(name).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    /// What is known of `name`.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Lookup<'_> {
        let name = normal(name);
        if let Some(addresses) = self.names.get(&name) {
            return Lookup::Addresses(addresses);
        }
        let under = |domain: &String| {
            name.strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        // A single label means a container. Asking the world for one tells it a name
        // that is none of its business, and takes a while.
        if !name.is_empty() && (!name.contains('.') || self.domains.iter().any(under)) {
            Lookup::Absent
        } else {
            Lookup::Elsewhere
        }
    }

    /// The name first given to an address.
    #[must_use]
    pub fn name_of(&self, address: Ipv4Addr) -> Option<&str> {
        self.addresses.get(&address).map(String::as_str)
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 2);

    fn zone() -> Zone {
        let mut zone = Zone::new(["shop"]);
        zone.insert("web", WEB);
        zone.insert("Web.Shop.", WEB);
        zone
    }

    #[track_caller]
    fn check(name: &str, expected: Lookup<'_>) {
        assert_eq!(zone().lookup(name), expected, "for {name}");
    }

    #[test]
    fn names_are_found_whatever_their_case_and_final_dot() {
        for name in ["web", "WEB", "web.", "web.shop", "WEB.SHOP."] {
            check(name, Lookup::Addresses(&[WEB]));
        }
    }

    #[test]
    fn what_would_be_ours_and_is_not_there_is_absent() {
        for name in ["api", "api.shop", "a.b.shop", "shop"] {
            check(name, Lookup::Absent);
        }
    }

    #[test]
    fn everything_else_is_for_others_to_answer() {
        for name in ["example.org", "web.workshop", "shop.example", "."] {
            check(name, Lookup::Elsewhere);
        }
    }

    #[test]
    fn an_address_keeps_the_first_name_it_was_given() {
        assert_eq!(zone().name_of(WEB), Some("web"));
        assert_eq!(zone().name_of(Ipv4Addr::LOCALHOST), None);
    }
}
