//! Networks made for real, in namespaces of their own. Needs root; says so if it is not.

#![expect(clippy::print_stderr, reason = "a skipped test says why")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use carrack_linux::{namespace, netlink, socket};
use carrack_network::{
    Attachment, Capture, Network, attach, capture, create_namespace, detach, ensure,
    hardware_address, remove, remove_namespace,
};

/// A network of its own within the machine's, removed when dropped.
struct Bench {
    network: Network,
    directory: tempfile::TempDir,
    tag: String,
}

/// A container's namespace on the bench.
struct Member {
    path: PathBuf,
    address: Ipv4Addr,
    host_interface: String,
}

impl Bench {
    /// `None`, with the reason printed, where networks cannot be made.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making networks needs root");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let tag = format!("{:x}{count:x}", process % 0x10_0000);
        let third = u8::try_from((process * 17 + count) % 250).expect("small");
        let subnet = format!("10.88.{third}.0/24").parse().expect("a subnet");
        let network = Network {
            name: format!("bench-{tag}"),
            bridge: format!("ckt{tag}"),
            subnet,
            gateway: carrack_network::address::gateway(subnet),
            masquerade: true,
        };
        ensure(&network).expect("the network stands");
        Some(Self { network, directory: tempfile::tempdir().expect("directory"), tag })
    }

    fn join(&self, host: u8) -> Member {
        let member = Member {
            path: self.directory.path().join(format!("ns{host}")),
            address: Ipv4Addr::from_bits(self.network.subnet.network().to_bits() + u32::from(host)),
            host_interface: format!("v{}x{host}", self.tag),
        };
        create_namespace(&member.path).expect("a namespace");
        self.attach(&member);
        member
    }

    fn attach(&self, member: &Member) {
        attach(&Attachment {
            namespace: &member.path,
            network: &self.network,
            address: member.address,
            interface: "eth0",
            host_interface: &member.host_interface,
            mac: hardware_address(member.address),
        })
        .expect("attached");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        remove(&self.network).expect("the network is gone");
    }
}

impl Member {
    /// Runs `act` on a thread inside.
    fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = namespace::open(&self.path).expect("opened");
        netlink::in_network_namespace(namespace.as_fd(), act).expect("entered")
    }

    fn output(&self, program: &str, arguments: &[&str]) -> String {
        self.inside(|| {
            let output = Command::new(program).args(arguments).output().expect("runs");
            String::from_utf8(output.stdout).expect("text")
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        detach(&self.host_interface).expect("detached");
        remove_namespace(&self.path).expect("removed");
    }
}

fn listen_on(member: &Member, port: u16) -> TcpListener {
    member.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).expect("listens")
}

fn dial(member: &Member, to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
    let to = to.into();
    member.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))
}

#[test]
fn two_containers_reach_each_other_and_the_gateway() {
    let Some(bench) = Bench::new() else { return };
    let (one, two) = (bench.join(2), bench.join(3));
    let listener = listen_on(&two, 80);
    let mut client = dial(&one, (two.address, 80)).expect("connected");
    let (mut served, peer) = listener.accept().expect("accepted");
    assert_eq!(peer.ip(), one.address, "the client's own address is seen");
    client.write_all(b"over the bridge").expect("written");
    drop(client);
    let mut text = String::new();
    served.read_to_string(&mut text).expect("read");
    assert_eq!(text, "over the bridge");

    let host = TcpListener::bind((bench.network.gateway, 0)).expect("on the gateway");
    dial(&one, host.local_addr().expect("address")).expect("the gateway answers");
}

#[test]
fn making_everything_twice_breaks_no_connection() {
    let Some(bench) = Bench::new() else { return };
    let (one, two) = (bench.join(2), bench.join(3));
    let listener = listen_on(&two, 80);
    let mut client = dial(&one, (two.address, 80)).expect("connected");
    let (mut served, _) = listener.accept().expect("accepted");
    ensure(&bench.network).expect("again");
    create_namespace(&one.path).expect("again");
    client.write_all(b"still").expect("written");
    drop(client);
    let mut text = String::new();
    served.read_to_string(&mut text).expect("read");
    assert_eq!(text, "still");
}

#[test]
fn a_container_attached_again_has_one_interface_that_works() {
    let Some(bench) = Bench::new() else { return };
    let (one, two) = (bench.join(2), bench.join(3));
    bench.attach(&one);
    let _listener = listen_on(&two, 80);
    dial(&one, (two.address, 80)).expect("connected");
    let links = one.output("ip", &["-o", "link", "show", "type", "veth"]);
    assert_eq!(links.lines().count(), 1, "{links}");
}

#[test]
fn what_leaves_takes_the_hosts_address() {
    let Some(bench) = Bench::new() else { return };
    // Another network of the machine stands for the world. From there nothing comes in
    // but by the tunnel's port.
    let Some(world) = Bench::new() else { return };
    let (inside, outside) = (bench.join(2), world.join(2));
    let listener = listen_on(&outside, 15008);
    dial(&inside, (outside.address, 15008)).expect("connected");
    let (_, peer) = listener.accept().expect("accepted");
    assert_eq!(peer.ip(), world.network.gateway, "masqueraded behind the host");
}

#[test]
fn another_network_reaches_in_by_the_tunnels_port_only() {
    let Some(bench) = Bench::new() else { return };
    let Some(other) = Bench::new() else { return };
    let (inside, stranger) = (bench.join(2), other.join(2));
    let _plain = listen_on(&inside, 80);
    let refusal = dial(&stranger, (inside.address, 80)).expect_err("refused");
    assert_ne!(refusal.kind(), ErrorKind::TimedOut, "and told at once: {refusal}");
    let _tunnel = listen_on(&inside, 15008);
    dial(&stranger, (inside.address, 15008)).expect("the tunnel is open");
}

#[test]
fn a_container_speaks_no_ipv6_but_to_itself() {
    let Some(bench) = Bench::new() else { return };
    let one = bench.join(2);
    let addresses = one.output("ip", &["-6", "-o", "address"]);
    assert!(addresses.contains("::1/128"), "{addresses}");
    assert!(!addresses.contains("eth0"), "{addresses}");
    let host = Command::new("ip")
        .args(["-6", "-o", "address", "show", "dev", &bench.network.bridge])
        .output()
        .expect("runs");
    assert_eq!(String::from_utf8_lossy(&host.stdout), "");
}

#[test]
fn a_connection_out_is_led_to_the_proxy_which_learns_where_it_was_going() {
    let Some(bench) = Bench::new() else { return };
    let (one, two) = (bench.join(2), bench.join(3));
    capture(&one.path, &Capture::default()).expect("captured");
    let proxy = listen_on(&one, 15001);
    let server = listen_on(&two, 80);
    let wanted = SocketAddrV4::new(two.address, 80);

    let client = dial(&one, wanted).expect("connected");
    let (led, _) = proxy.accept().expect("the proxy has it");
    assert_eq!(socket::original_destination(&led).expect("known"), wanted);
    assert_eq!(client.peer_addr().expect("peer"), wanted.into(), "the client notices nothing");

    let _marked = one.inside(|| dial_marked(wanted, Capture::default().mark));
    let (_, peer) = server.accept().expect("what carries the proxy's mark passes");
    assert_eq!(peer.ip(), one.address);
}

fn dial_marked(to: SocketAddrV4, mark: u32) -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketType, connect};
    let dialing = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
    let dialing = dialing.expect("a socket");
    socket::set_mark(&dialing, mark).expect("marked");
    connect(&dialing, &SocketAddr::from(to)).expect("connected");
    dialing
}

#[test]
fn a_connection_in_is_led_to_the_proxy_unless_it_is_the_tunnel() {
    let Some(bench) = Bench::new() else { return };
    let (one, two) = (bench.join(2), bench.join(3));
    capture(&two.path, &Capture::default()).expect("captured");
    let (plain, tunnel) = (listen_on(&two, 15006), listen_on(&two, 15008));
    let _server = listen_on(&two, 80);

    let _client = dial(&one, (two.address, 80)).expect("connected");
    let (led, _) = plain.accept().expect("led to the plaintext port");
    let wanted = SocketAddrV4::new(two.address, 80);
    assert_eq!(socket::original_destination(&led).expect("known"), wanted);
    let _stranger = TcpStream::connect((two.address, 80)).expect("connected");
    plain.accept().expect("one from the host is treated the same");

    let _tunneled = dial(&one, (two.address, 15008)).expect("connected");
    tunnel.accept().expect("the tunnel's connection arrives as it is");
}

#[test]
fn nothing_gets_out_or_in_while_no_proxy_listens() {
    let Some(bench) = Bench::new() else { return };
    let (one, two) = (bench.join(2), bench.join(3));
    let _servers = (listen_on(&one, 80), listen_on(&two, 80));
    capture(&one.path, &Capture::default()).expect("captured");
    dial(&one, (two.address, 80)).expect_err("refused on the way out");
    dial(&two, (one.address, 80)).expect_err("refused on the way in");
}

#[test]
fn the_loopback_and_udp_are_left_alone() {
    let Some(bench) = Bench::new() else { return };
    let (one, two) = (bench.join(2), bench.join(3));
    capture(&one.path, &Capture::default()).expect("captured");
    let own = listen_on(&one, 80);
    let _client = dial(&one, (Ipv4Addr::LOCALHOST, 80)).expect("connected");
    own.accept().expect("accepted");

    let server = two.inside(|| UdpSocket::bind((two.address, 53))).expect("bound");
    server.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let client = one.inside(|| UdpSocket::bind((one.address, 0))).expect("bound");
    client.send_to(b"who?", (two.address, 53)).expect("sent");
    assert_eq!(server.recv(&mut [0; 8]).expect("received"), 4);
}

#[test]
fn the_capture_rules_read_back_as_they_were_meant_also_when_set_twice() {
    let Some(bench) = Bench::new() else { return };
    let one = bench.join(2);
    capture(&one.path, &Capture::default()).expect("captured");
    capture(&one.path, &Capture::default()).expect("captured again");
    let expected = "\
table ip carrack {
	chain outbound {
		type nat hook output priority -100; policy accept;
		meta mark 0x00000539 return
		ip daddr 127.0.0.0/8 return
		meta l4proto tcp redirect to :15001
	}

	chain inbound {
		type nat hook prerouting priority dstnat; policy accept;
		iifname \"lo\" return
		tcp dport 15008 return
		meta l4proto tcp redirect to :15006
	}
}
";
    assert_eq!(one.output("nft", &["list", "ruleset"]), expected);
}

#[test]
fn nothing_is_left_of_a_network_that_was_removed_even_twice() {
    let Some(bench) = Bench::new() else { return };
    let bridge = bench.network.bridge.clone();
    let path = bench.join(2).path.clone();
    assert!(!path.exists());
    remove_namespace(&path).expect("removing nothing is no error");
    remove(&bench.network).expect("removed");
    remove(&bench.network).expect("removing nothing is no error");
    assert!(!Path::new("/sys/class/net").join(&bridge).exists());
    let tables = Command::new("nft").args(["list", "tables"]).output().expect("runs");
    assert!(!String::from_utf8_lossy(&tables.stdout).contains(&bridge));
}

#[test]
fn a_link_that_is_no_bridge_is_neither_used_nor_removed() {
    let Some(bench) = Bench::new() else { return };
    let member = bench.join(2);
    let other = Network { bridge: member.host_interface.clone(), ..bench.network.clone() };
    ensure(&other).expect_err("taken");
    remove(&other).expect_err("taken");
    assert!(Path::new("/sys/class/net").join(&member.host_interface).exists());
}
