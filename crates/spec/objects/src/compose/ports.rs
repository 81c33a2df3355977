//! `ports` and `expose`.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use super::application::Port;
use super::reading::Reading;
use crate::cursor::Cursor;
use crate::mesh::AppProtocol;

/// Ports one entry may stand for.
const RANGE_MAX: usize = 1024;

const SHORT_FORM: &str = "takes `[[ADDRESS:]HOST:]CONTAINER`, such as `8080:80`";

/// Reads one entry of `ports`, which may be a range.
pub(super) fn read(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Vec<Port> {
    if at.is_mapping() { long(reading, at) } else { short(reading, at) }.unwrap_or_default()
}

/// Reads one entry of `expose`.
pub(super) fn expose(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Vec<u16> {
    let parse = |text: &str| range(text.strip_suffix("/tcp").unwrap_or(text));
    reading
        .parsed(at, "a TCP port or a range of them", parse)
        .map(Iterator::collect)
        .unwrap_or_default()
}

fn short(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<Vec<Port>> {
    let written = reading.text(at)?;
    let (text, protocol) = written.rsplit_once('/').unwrap_or((&written, "tcp"));
    if !protocol.eq_ignore_ascii_case("tcp") {
        reading.wrong(
            at,
            format_args!("is {protocol}, which is not supported yet: the mesh carries TCP"),
        );
        return None;
    }
    let (head, container) = text.rsplit_once(':').unwrap_or(("", text));
    let (address, host) = match head.rsplit_once(':') {
        Some((address, host)) => (Some(address), host),
        None => (None, head),
    };
    let host_address = match address {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(address) => self::address(reading, at, address)?,
    };
    let Some(container) = range(container) else {
        reading.wrong(at, format_args!("{SHORT_FORM}, not `{written}`"));
        return None;
    };
    // `80` and `ADDRESS::80` leave the host's port to the engine; `:80` is a slip.
    let chosen_by_engine = host.is_empty() && (address.is_some() || !text.contains(':'));
    let host_range = range(host);
    if host_range.is_none() && !chosen_by_engine {
        reading.wrong(at, format_args!("{SHORT_FORM}, not `{written}`"));
        return None;
    }
    pair(reading, at, host_address, host_range, container, None)
}

fn long(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<Vec<Port>> {
    let Some(target) = at.get("target") else {
        reading.wrong(at, "lacks `target`, the container's port");
        return None;
    };
    let target = reading.parsed(&target, "a port between 1 and 65535", port)?;
    let host = match at.get("published") {
        Some(at) => Some(reading.parsed(&at, "a port or a range of them", range)?),
        None => None,
    };
    let host_address = match at.get("host_ip") {
        Some(at) => {
            let written = reading.text(&at)?;
            address(reading, &at, &written)?
        }
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let protocol = match at.get("app_protocol") {
        Some(at) => {
            let written = reading.text(&at)?;
            match written.parse::<AppProtocol>() {
                Ok(protocol) => Some(protocol),
                Err(error) => {
                    reading.wrong(&at, format_args!("is refused: {error}"));
                    None
                }
            }
        }
        None => None,
    };
    pair(reading, at, host_address, host, target..=target, protocol)
}

fn pair(
    reading: &mut Reading<'_>,
    at: &Cursor<'_>,
    host_address: IpAddr,
    host: Option<RangeInclusive<u16>>,
    container: RangeInclusive<u16>,
    protocol: Option<AppProtocol>,
) -> Option<Vec<Port>> {
    let (many, hosts) = (container.len(), host.as_ref().map(ExactSizeIterator::len));
    if many > RANGE_MAX {
        reading.wrong(at, format_args!("stands for {many} ports, more than {RANGE_MAX}"));
        return None;
    }
    if hosts.is_some_and(|hosts| hosts != many) {
        reading.wrong(at, "pairs ranges of different length, which is not supported yet");
        return None;
    }
    let mut host_ports = host;
    Some(
        container
            .map(|container_port| Port {
                host: host_address,
                host_port: host_ports.as_mut().and_then(Iterator::next),
                container_port,
                protocol,
            })
            .collect(),
    )
}

fn address(reading: &mut Reading<'_>, at: &Cursor<'_>, written: &str) -> Option<IpAddr> {
    let bare = written.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(written);
    match bare.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            reading.wrong(at, format_args!("names `{written}`, which is no IP address"));
            None
        }
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port != 0)
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last).then_some(first..=last)
}
