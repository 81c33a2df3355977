//! Passing a query on to the name servers the host uses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one name server may take. The asker gives up after five seconds, as a rule.
const PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_MAX: usize = 4096;
const IS_ANSWER: u8 = 0x80;

/// Asks each of `upstreams` in turn over UDP; `None` when none of them answers.
///
/// Every query has a socket, and so a port, of its own.
pub(super) async fn over_udp(query: &[u8], upstreams: &[SocketAddr]) -> Option<Vec<u8>> {
    for upstream in upstreams {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask_udp(query, *upstream)).await {
            return Some(answer);
        }
    }
    None
}

/// Asks each of `upstreams` in turn over TCP; `None` when none of them answers.
pub(super) async fn over_tcp(query: &[u8], upstreams: &[SocketAddr]) -> Option<Vec<u8>> {
    for upstream in upstreams {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask_tcp(query, *upstream)).await {
            return Some(answer);
        }
    }
    None
}

async fn ask_udp(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; ANSWER_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length).filter(|answer| answers(answer, query)) {
            return Ok(answer.to_vec());
        }
    }
}

async fn ask_tcp(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}

/// Whether `answer` has the id of `query` and says it is an answer.
fn answers(answer: &[u8], query: &[u8]) -> bool {
    answer.first_chunk::<2>() == query.first_chunk::<2>()
        && answer.get(2).is_some_and(|flags| flags & IS_ANSWER != 0)
}

/// Reads a message behind its length, as TCP has them.
pub(super) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message behind its length.
pub(super) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
