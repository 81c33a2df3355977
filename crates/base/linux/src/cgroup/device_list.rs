//! The list of devices of a version 1 group: what holds, what is wanted, what to write.
//!
//! The kernel keeps a default and exceptions from it, and forgets all exceptions when the
//! default is written. Rules of the configuration are read in their order, the last that
//! matches deciding; what the kernel cannot keep is refused by name.

use std::collections::BTreeMap;

use super::setting::Setting;
use super::{CgroupError, DeviceAccess, DeviceKind, DeviceRule};

/// Kind, major and minor; `None` is all.
type Place = (bool, Option<u32>, Option<u32>);

/// A default, and where it does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    allows_rest: bool,
    exceptions: BTreeMap<Place, DeviceAccess>,
    /// The places of the exceptions as rules named them; empty for a list that was read.
    order: Vec<Place>,
}

impl List {
    /// What the rules come to, from nothing allowed.
    pub(super) fn wanted(rules: &[DeviceRule]) -> Result<Self, CgroupError> {
        let mut list = Self::default();
        rules.iter().try_for_each(|rule| list.apply(rule))?;
        Ok(list)
    }

    /// What the text of `devices.list` says: either all, or what is allowed.
    pub(super) fn listed(text: &str) -> Self {
        let mut list = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(kind), Some(numbers)) = (words.next(), words.next()) else { continue };
            if kind == "a" {
                return Self { allows_rest: true, ..Self::default() };
            }
            let (major, minor) = numbers.split_once(':').unwrap_or((numbers, "*"));
            let mut access = DeviceAccess::empty();
            for letter in words.next().unwrap_or_default().chars() {
                access |= match letter {
                    'r' => DeviceAccess::READ,
                    'w' => DeviceAccess::WRITE,
                    'm' => DeviceAccess::MAKE,
                    _ => DeviceAccess::empty(),
                };
            }
            list.exceptions.insert((kind == "b", major.parse().ok(), minor.parse().ok()), access);
        }
        list
    }

    /// What is allowed, in the words of systemd; `None` where there are none: when all is
    /// allowed but some, or one minor number of every major.
    pub(super) fn allowed(&self) -> Option<Vec<(String, String)>> {
        if self.allows_rest {
            return None;
        }
        let entry = |(place, access): (&Place, &DeviceAccess)| {
            let (block, major, minor) = *place;
            let kind = if block { "block" } else { "char" };
            let path = match (major, minor) {
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (Some(major), None) => format!("{kind}-{major}"),
                (None, None) => format!("{kind}-*"),
                (None, Some(_)) => return None,
            };
            Some((path, access.letters()))
        };
        self.exceptions.iter().map(entry).collect()
    }

    fn apply(&mut self, rule: &DeviceRule) -> Result<(), CgroupError> {
        let block = match rule.kind {
            DeviceKind::All => {
                *self = Self { allows_rest: rule.allow, ..Self::default() };
                return Ok(());
            }
            DeviceKind::Block => true,
            DeviceKind::Character => false,
        };
        let place = (block, rule.major, rule.minor);
        if rule.allow != self.allows_rest {
            if !self.order.contains(&place) {
                self.order.push(place);
            }
            *self.exceptions.entry(place).or_insert_with(DeviceAccess::empty) |= rule.access;
            return Ok(());
        }
        for (other, access) in &mut self.exceptions {
            if !access.intersects(rule.access) || !meet(*other, place) {
                continue;
            }
            if !within(*other, place) {
                return Err(CgroupError::Unsupported {
                    what: format!(
                        "device rule '{}' against a rule for more devices than it",
                        rule.v1_text()
                    ),
                    remedy: "control groups version 1 cannot keep both; list the devices one by one",
                });
            }
            *access -= rule.access;
        }
        self.exceptions.retain(|_, access| !access.is_empty());
        Ok(())
    }

    /// What makes `self` into `wanted`: nothing for what holds already, and what is taken
    /// away before what is given.
    pub(super) fn changes(&self, wanted: &Self) -> Vec<Setting> {
        let mut all = Vec::new();
        // What is excepted from "all" is not listed, so it cannot be compared.
        let afresh = self.allows_rest || wanted.allows_rest;
        if afresh {
            let file = if wanted.allows_rest { "devices.allow" } else { "devices.deny" };
            all.push(Setting::new("devices", file, "a"));
        }
        let before = if afresh { &BTreeMap::new() } else { &self.exceptions };
        let nothing = DeviceAccess::empty;
        let of = |list: &BTreeMap<Place, DeviceAccess>, place: &Place| {
            list.get(place).copied().unwrap_or_else(nothing)
        };
        for (place, access) in before {
            let gone = *access - of(&wanted.exceptions, place);
            all.extend(exception(false, *place, gone));
        }
        // In the order of the rules, in which the kernel then lists them.
        for place in &wanted.order {
            let new = of(&wanted.exceptions, place) - of(before, place);
            all.extend(exception(!wanted.allows_rest, *place, new));
        }
        all
    }
}

fn exception(allow: bool, place: Place, access: DeviceAccess) -> Option<Setting> {
    let (block, major, minor) = place;
    let kind = if block { DeviceKind::Block } else { DeviceKind::Character };
    let file = if allow { "devices.allow" } else { "devices.deny" };
    let rule = DeviceRule { allow, kind, major, minor, access };
    (!access.is_empty()).then(|| Setting::new("devices", file, rule.v1_text()))
}

/// Whether some device is in both.
fn meet(one: Place, other: Place) -> bool {
    let agree =
        |one: Option<u32>, other: Option<u32>| one.is_none() || other.is_none() || one == other;
    one.0 == other.0 && agree(one.1, other.1) && agree(one.2, other.2)
}

/// Whether every device of `inner` is in `outer`.
fn within(inner: Place, outer: Place) -> bool {
    let holds = |inner: Option<u32>, outer: Option<u32>| outer.is_none() || inner == outer;
    inner.0 == outer.0 && holds(inner.1, outer.1) && holds(inner.2, outer.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        allow: bool,
        kind: DeviceKind,
        numbers: (Option<u32>, Option<u32>),
        access: u16,
    ) -> DeviceRule {
        let access = DeviceAccess::from_bits_truncate(access);
        DeviceRule { allow, kind, major: numbers.0, minor: numbers.1, access }
    }

    const ALL: u16 = 7;
    const WRITE: u16 = 4;
    const ANY: (Option<u32>, Option<u32>) = (None, None);

    #[track_caller]
    fn check(before: &str, rules: &[DeviceRule], expected: &[&str]) {
        let changes = List::listed(before).changes(&List::wanted(rules).unwrap());
        let changes: Vec<String> =
            changes.iter().map(|one| format!("{}={}", one.file, one.value)).collect();
        assert_eq!(changes, expected, "from {before:?}");
    }

    #[test]
    fn a_fresh_group_is_closed_and_then_opened_for_what_is_allowed() {
        let null = rule(true, DeviceKind::Character, (Some(1), Some(3)), ALL);
        let closed = rule(false, DeviceKind::All, ANY, ALL);
        check("a *:* rwm\n", &[closed, null], &["devices.deny=a", "devices.allow=c 1:3 rwm"]);
    }

    #[test]
    fn what_holds_already_is_not_written_again() {
        let null = rule(true, DeviceKind::Character, (Some(1), Some(3)), ALL);
        check("c 1:3 rwm\n", &[null], &[]);
        let disk = rule(true, DeviceKind::Block, (Some(8), None), 2);
        check("c 1:3 rwm\nb 8:* rw\n", &[null, disk], &["devices.deny=b 8:* w"]);
        check("c 1:3 r\n", &[null, disk], &["devices.allow=c 1:3 wm", "devices.allow=b 8:* r"]);
    }

    #[test]
    fn a_later_rule_takes_back_what_an_earlier_one_gave() {
        let null = rule(true, DeviceKind::Character, (Some(1), Some(3)), ALL);
        let none = rule(false, DeviceKind::Character, (Some(1), None), WRITE);
        check("", &[null, none], &["devices.allow=c 1:3 rm"]);
        let open = rule(true, DeviceKind::All, ANY, ALL);
        let except = rule(false, DeviceKind::Block, (Some(8), None), ALL);
        check("c 1:3 rwm\n", &[open, except], &["devices.allow=a", "devices.deny=b 8:* rwm"]);
    }

    #[test]
    fn an_exception_from_an_exception_is_refused_by_name() {
        let all = rule(true, DeviceKind::Character, (Some(1), None), ALL);
        let less = rule(false, DeviceKind::Character, (Some(1), Some(5)), WRITE);
        let error = List::wanted(&[all, less]).unwrap_err().to_string();
        assert!(error.contains("'c 1:5 w'"), "{error}");
    }
}
