//! Leading a container's connections through the node proxy.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::Path;

use carrack_linux::netlink::{Family, Socket};
use carrack_linux::nft::{self, Action, Chain, Match, Place, Rule, Table};

use crate::error::{NetworkError, refused};
use crate::namespace;

const TABLE: &str = "carrack";
const LOOPBACK: &str = "lo";
const LOOPBACK_PREFIX: u8 = 8;

/// Where captured connections go, and which ones are the proxy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Port that connections made in the container are led to.
    pub outbound: u16,
    /// Port that connections arriving from outside the mesh are led to.
    pub inbound: u16,
    /// Port of the tunnel, whose connections arrive as they are.
    pub tunnel: u16,
    /// Mark on the proxy's own packets, which are left alone.
    pub mark: u32,
}

impl Default for Capture {
    fn default() -> Self {
        Self { outbound: 15001, inbound: 15006, tunnel: 15008, mark: 0x539 }
    }
}

/// Leads the TCP connections of the namespace at `path` through the node proxy.
///
/// From its return on no TCP connection leaves or enters without the proxy: if none
/// listens it is refused. Connections to 127.0.0.0/8, and everything that is not TCP,
/// stay as they are. The rules take the place of earlier ones at once.
///
/// # Errors
///
/// [`NetworkError::Namespace`] when there is none at `path`.
pub fn capture(path: &Path, capture: &Capture) -> Result<(), NetworkError> {
    let namespace = namespace::open(path)?;
    let shown = path.display().to_string();
    let mut filter = Socket::open_in(namespace.as_fd(), Family::Netfilter)
        .map_err(refused("speaking with the namespace at", &*shown))?;
    nft::create(&mut filter, &rules(*capture))
        .map_err(refused("capturing the connections of", &*shown))
}

fn rules(capture: Capture) -> Table {
    let rule = |when, then| Rule { when, then };
    let outbound = vec![
        rule(vec![Match::Mark(capture.mark)], Action::Return),
        rule(vec![Match::Destination(Ipv4Addr::LOCALHOST, LOOPBACK_PREFIX)], Action::Return),
        rule(vec![Match::Tcp], Action::RedirectTo(capture.outbound)),
    ];
    let inbound = vec![
        rule(vec![Match::From(LOOPBACK.to_owned())], Action::Return),
        rule(vec![Match::TcpTo(capture.tunnel)], Action::Return),
        rule(vec![Match::Tcp], Action::RedirectTo(capture.inbound)),
    ];
    let chain = |name, place, rules| Chain { name, place, rules };
    Table {
        name: TABLE.to_owned(),
        chains: vec![
            chain("outbound", Place::TranslateLocal, outbound),
            chain("inbound", Place::TranslateArriving, inbound),
        ],
    }
}
