//! The name server, asked over real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use carrack_network::dns::{Sockets, Zone, serve};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 2);

async fn start(zone: &Arc<ArcSwap<Zone>>, upstreams: Vec<SocketAddr>) -> SocketAddr {
    let sockets = Sockets::bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("bound");
    let address = sockets.local_addr().expect("address");
    let zone = Arc::clone(zone);
    tokio::spawn(async move { serve(sockets, zone, upstreams).await });
    address
}

fn zone(names: &[(&str, Ipv4Addr)]) -> Arc<ArcSwap<Zone>> {
    let mut zone = Zone::new(["shop"]);
    for (name, address) in names {
        zone.insert(name, *address);
    }
    Arc::new(ArcSwap::from_pointee(zone))
}

/// A name server that knows one name of the world.
async fn upstream() -> SocketAddr {
    start(&zone(&[("example.org", THERE)]), Vec::new()).await
}

fn query(name: &str) -> Message {
    let mut message = Message::query();
    let name = Name::from_ascii(name).expect("a name");
    message.add_query(Query::query(name, RecordType::A));
    message
}

async fn ask_udp(server: SocketAddr, name: &str) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    socket.connect(server).await.expect("connected");
    socket.send(&query(name).to_vec().expect("bytes")).await.expect("sent");
    let mut buffer = [0; 2048];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("in time").expect("read");
    Message::from_vec(&buffer[..length]).expect("an answer")
}

async fn ask_tcp(server: SocketAddr, name: &str) -> Message {
    let mut stream = TcpStream::connect(server).await.expect("connected");
    let query = query(name).to_vec().expect("bytes");
    stream.write_u16(u16::try_from(query.len()).expect("short")).await.expect("written");
    stream.write_all(&query).await.expect("written");
    let length = timeout(PATIENCE, stream.read_u16()).await.expect("in time").expect("read");
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.expect("read");
    Message::from_vec(&answer).expect("an answer")
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(address.0),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

#[tokio::test]
async fn both_transports_give_the_same_answer() {
    let server = start(&zone(&[("web", WEB)]), Vec::new()).await;
    assert_eq!(addresses(&ask_udp(server, "web.").await), [WEB]);
    assert_eq!(addresses(&ask_tcp(server, "web.").await), [WEB]);
}

#[tokio::test]
async fn what_is_not_ours_is_asked_elsewhere_by_either_transport() {
    let server = start(&zone(&[]), vec![upstream().await]).await;
    assert_eq!(addresses(&ask_udp(server, "example.org.").await), [THERE]);
    assert_eq!(addresses(&ask_tcp(server, "example.org.").await), [THERE]);
}

#[tokio::test]
async fn a_name_server_that_is_down_is_passed_over() {
    let unused = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let dead = unused.local_addr().expect("address");
    drop(unused);
    let server = start(&zone(&[]), vec![dead, upstream().await]).await;
    assert_eq!(addresses(&ask_udp(server, "example.org.").await), [THERE]);
}

#[tokio::test]
async fn with_nobody_to_ask_the_asker_is_told_at_once() {
    let server = start(&zone(&[]), Vec::new()).await;
    let answer = ask_udp(server, "example.org.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_name_of_ours_that_is_not_there_is_never_asked_elsewhere() {
    let server = start(&zone(&[]), vec![upstream().await]).await;
    for name in ["api.", "api.shop."] {
        let answer = ask_udp(server, name).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "for {name}");
    }
}

/// 20,000 queries while the zone is replaced as fast as it can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_lost_while_containers_come_and_go() {
    let zone = zone(&[("web", WEB)]);
    let server = start(&zone, Vec::new()).await;
    let done = Arc::new(AtomicBool::new(false));
    let swapping = tokio::task::spawn_blocking({
        let (zone, done) = (Arc::clone(&zone), Arc::clone(&done));
        move || swap_until(&zone, &done)
    });

    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    socket.connect(server).await.expect("connected");
    let mut buffer = [0; 2048];
    for number in 0..20_000_u16 {
        let mut query = query("web.");
        query.metadata.id = number;
        socket.send(&query.to_vec().expect("bytes")).await.expect("sent");
        let received = timeout(PATIENCE, socket.recv(&mut buffer)).await;
        let length = received.expect("no answer is lost").expect("read");
        let answer = Message::from_vec(&buffer[..length]).expect("an answer");
        assert_eq!((answer.metadata.id, addresses(&answer)), (number, vec![WEB]));
    }
    done.store(true, Ordering::Relaxed);
    let swaps = swapping.await.expect("swapping");
    assert!(swaps > 100, "only {swaps} swaps happened meanwhile");
}

/// Replaces the zone by ones of up to a thousand other containers. Returns how often.
fn swap_until(zone: &ArcSwap<Zone>, done: &AtomicBool) -> u32 {
    let mut swaps = 0;
    while !done.load(Ordering::Relaxed) {
        let mut next = Zone::new(["shop"]);
        next.insert("web", WEB);
        for other in 0..(swaps * 37) % 1000 {
            next.insert(&format!("c{other}"), Ipv4Addr::from_bits(0x0a59_0100 + other));
        }
        zone.store(Arc::new(next));
        swaps += 1;
    }
    swaps
}
