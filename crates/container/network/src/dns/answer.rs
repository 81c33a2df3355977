//! From a query's bytes to an answer's, or to the decision to ask elsewhere. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Lookup, Zone};

/// How long others may remember an answer. Short: containers come and go.
const TIME_TO_LIVE_S: u32 = 5;
const UDP_WITHOUT_EDNS: u16 = 512;
const UDP_WITH_EDNS: u16 = 1232;
const HEADER: usize = 12;

/// What to do about a query.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Send these bytes back.
    Answer(Vec<u8>),
    /// Pass the query on as it is.
    Forward,
    /// It is not a query; say nothing.
    Ignore,
}

/// How an answer travels, which decides how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Answers from `zone`, as far as that is its business.
pub(super) fn answer(zone: &Zone, bytes: &[u8], transport: Transport) -> Verdict {
    let Ok(query) = Message::from_vec(bytes) else {
        return failure(bytes, ResponseCode::FormErr).map_or(Verdict::Ignore, Verdict::Answer);
    };
    if query.metadata.message_type != MessageType::Query {
        return Verdict::Ignore;
    }
    if query.metadata.op_code != OpCode::Query {
        return finish(respond(&query, ResponseCode::NotImp), transport);
    }
    let [question] = query.queries.as_slice() else {
        return finish(respond(&query, ResponseCode::FormErr), transport);
    };
    if question.query_class() != DNSClass::IN {
        return Verdict::Forward;
    }
    match question.query_type() {
        RecordType::PTR => reverse(zone, &query, question, transport),
        _ => direct(zone, &query, question, transport),
    }
}

/// An answer without content to whatever `bytes` are, if they have an id to answer to.
pub(super) fn failure(bytes: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    if let Ok(query) = Message::from_vec(bytes) {
        return respond(&query, code).to_vec().ok();
    }
    let header = bytes.get(..HEADER)?;
    let is_answer = header.get(2)? & 0x80 != 0;
    let id = u16::from_be_bytes(*header.first_chunk()?);
    (!is_answer).then(|| Message::error_msg(id, OpCode::Query, code).to_vec().ok())?
}

fn direct(zone: &Zone, query: &Message, question: &Query, transport: Transport) -> Verdict {
    let addresses = match zone.lookup(&question.name().to_ascii()) {
        Lookup::Elsewhere => return Verdict::Forward,
        Lookup::Absent => return finish(respond(query, ResponseCode::NXDomain), transport),
        Lookup::Addresses(addresses) => addresses,
    };
    let mut response = respond(query, ResponseCode::NoError);
    if matches!(question.query_type(), RecordType::A | RecordType::ANY) {
        let mut addresses = addresses.to_vec();
        // Ids are random, so each address comes first equally often.
        let turn = usize::from(query.metadata.id).checked_rem(addresses.len()).unwrap_or(0);
        addresses.rotate_left(turn);
        let record = |address| {
            Record::from_rdata(question.name().clone(), TIME_TO_LIVE_S, RData::A(A(address)))
        };
        response.add_answers(addresses.into_iter().map(record));
    }
    finish(response, transport)
}

fn reverse(zone: &Zone, query: &Message, question: &Query, transport: Transport) -> Verdict {
    let address = question.name().parse_arpa_name().map(|network| network.addr());
    let Ok(IpAddr::V4(address)) = address else { return Verdict::Forward };
    let name = zone.name_of(address).and_then(|name| Name::from_ascii(format!("{name}.")).ok());
    let Some(name) = name else { return Verdict::Forward };
    let mut response = respond(query, ResponseCode::NoError);
    let data = RData::PTR(PTR(name));
    response.add_answer(Record::from_rdata(question.name().clone(), TIME_TO_LIVE_S, data));
    finish(response, transport)
}

fn respond(query: &Message, code: ResponseCode) -> Message {
    let mut response = Message::error_msg(query.metadata.id, query.metadata.op_code, code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.authoritative = true;
    response.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_WITH_EDNS);
        response.set_edns(edns);
    }
    response
}

/// Writes an answer, cut if it does not fit; who gets a cut one asks again over TCP.
fn finish(response: Message, transport: Transport) -> Verdict {
    let limit = match (transport, &response.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(_)) => UDP_WITH_EDNS,
        (Transport::Udp, None) => UDP_WITHOUT_EDNS,
    };
    let written = match response.to_vec() {
        Ok(bytes) if bytes.len() > usize::from(limit) => response.truncate().to_vec(),
        written => written,
    };
    written.map_or(Verdict::Ignore, Verdict::Answer)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn zone() -> Zone {
        let mut zone = Zone::new(["shop"]);
        zone.insert("web", Ipv4Addr::new(10, 89, 0, 2));
        for host in 1..=100 {
            zone.insert("many", Ipv4Addr::new(10, 89, 1, host));
        }
        zone
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).expect("name"), kind));
        message
    }

    #[track_caller]
    fn ask(name: &str, kind: RecordType, transport: Transport) -> Message {
        let query = query(name, kind);
        match answer(&zone(), &query.to_vec().expect("bytes"), transport) {
            Verdict::Answer(bytes) => {
                let answer = Message::from_vec(&bytes).expect("an answer");
                assert_eq!(answer.metadata.id, query.metadata.id);
                assert_eq!(answer.queries, query.queries);
                answer
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_known_name_has_its_address_and_no_ipv6_one() {
        let found = ask("web.", RecordType::A, Transport::Udp);
        assert_eq!(found.metadata.response_code, ResponseCode::NoError);
        assert_eq!(found.answers.len(), 1);
        let none = ask("web.", RecordType::AAAA, Transport::Udp);
        assert_eq!(none.metadata.response_code, ResponseCode::NoError);
        assert!(none.answers.is_empty());
    }

    #[test]
    fn a_name_that_would_be_ours_does_not_exist_and_another_is_passed_on() {
        let absent = ask("api.shop.", RecordType::A, Transport::Udp);
        assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
        let other = query("example.org.", RecordType::A).to_vec().expect("bytes");
        assert!(matches!(answer(&zone(), &other, Transport::Udp), Verdict::Forward));
    }

    #[test]
    fn an_answer_too_long_for_udp_is_cut_and_whole_over_tcp() {
        let cut = ask("many.", RecordType::A, Transport::Udp);
        assert!(cut.metadata.truncation);
        assert!(cut.answers.is_empty());
        let whole = ask("many.", RecordType::A, Transport::Tcp);
        assert_eq!(whole.answers.len(), 100);
    }

    #[test]
    fn an_address_has_its_name() {
        let found = ask("2.0.89.10.in-addr.arpa.", RecordType::PTR, Transport::Udp);
        assert_eq!(found.answers[0].data.to_string(), "web.");
    }

    #[test]
    fn bytes_that_are_no_query_are_told_so_and_answers_are_ignored() {
        let mut broken = query("web.", RecordType::A).to_vec().expect("bytes");
        broken.truncate(HEADER + 2);
        assert!(matches!(answer(&zone(), &broken, Transport::Udp), Verdict::Answer(_)));
        let echo = Message::error_msg(7, OpCode::Query, ResponseCode::NoError);
        let echo = echo.to_vec().expect("bytes");
        assert!(matches!(answer(&zone(), &echo, Transport::Udp), Verdict::Ignore));
        assert!(matches!(answer(&zone(), b"hi", Transport::Udp), Verdict::Ignore));
    }

    proptest::proptest! {
        /// Containers may send anything at all.
        #[test]
        fn whatever_comes_is_answered_with_its_own_id_or_not_at_all(
            flips in proptest::collection::vec((0_usize..40, 0_u8..=255), 0..6),
            length in 0_usize..60,
        ) {
            let mut bytes = query("web.shop.", RecordType::A).to_vec().expect("bytes");
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(length);
            if let Verdict::Answer(answer) = answer(&zone(), &bytes, Transport::Udp) {
                proptest::prop_assert_eq!(&answer[..2], &bytes[..2]);
                proptest::prop_assert!(Message::from_vec(&answer).is_ok());
            }
        }
    }
}
