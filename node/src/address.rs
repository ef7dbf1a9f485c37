//! What an address says about where a peer is: on this machine, in this network, or anywhere.
//!
//! Two things hang on it: which of our own addresses we tell whom, and whether bytes came from a LAN peer or from afar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This machine, a private network, a carrier's shared network, a link.
    Near,
    /// The whole internet, or a name that has to be resolved first.
    Global,
    /// No address of a host at all (unspecified).
    Nowhere,
}

/// Whether an address leads through a relay.
pub(crate) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether an address is one of QUIC's.
pub(crate) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::QuicV1)
}

/// How a connection is made, as metrics call it.
pub(crate) fn transport(address: &Multiaddr) -> &'static str {
    if is_circuit(address) {
        return "p2p-circuit";
    }
    if is_quic(address) {
        return "quic-v1";
    }
    let is_tcp = address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
    if is_tcp { "tcp" } else { "other" }
}

/// Classifies the first component that names a host; of a circuit that is its relay's.
pub(crate) fn reach(address: &Multiaddr) -> Reach {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => reach_of_ip(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) => reach_of_ip(IpAddr::V6(ip)),
        Some(Protocol::Memory(_)) => Reach::Near,
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => {
            Reach::Global
        }
        _ => Reach::Nowhere,
    }
}

/// How far an address of a host reaches.
pub(crate) fn reach_of_ip(ip: IpAddr) -> Reach {
    let near = match ip {
        IpAddr::V4(ip) => is_near_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_near_v4(mapped),
            None => is_near_v6(ip),
        },
    };
    if ip.is_unspecified() || ip.is_multicast() {
        Reach::Nowhere
    } else if near {
        Reach::Near
    } else {
        Reach::Global
    }
}

fn is_near_v4(ip: Ipv4Addr) -> bool {
    // RFC 6598: shared by the customers of one carrier.
    let [first, second, ..] = ip.octets();
    let carrier = first == 100 && (64..128).contains(&second);
    ip.is_loopback() || ip.is_private() || ip.is_link_local() || carrier
}

fn is_near_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
}

/// Splits `/…/p2p/ID` into the peer and the address without that ending.
pub(crate) fn split_peer(address: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let mut rest = address.clone();
    match rest.pop() {
        Some(Protocol::P2p(peer)) => Some((peer, rest)),
        _ => None,
    }
}

/// The peer that an address ends in, as in `/ip4/192.0.2.1/tcp/4001/p2p/12D3…`.
pub fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    split_peer(address).map(|(peer, _)| peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Reach {
        reach(&text.parse().unwrap())
    }

    #[test]
    fn addresses_are_classified_as_the_internet_registries_do() {
        for near in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.1.2.3/tcp/1",
            "/ip4/192.168.0.9/tcp/1",
            "/ip4/172.16.5.5/tcp/1",
            "/ip4/169.254.1.1/tcp/1",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/::ffff:10.0.0.1/tcp/1",
            "/memory/7",
        ] {
            assert_eq!(of(near), Reach::Near, "{near}");
        }
        for global in [
            "/ip4/1.2.3.4/tcp/1",
            "/ip4/100.128.0.1/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/dns4/a.b/tcp/1",
        ] {
            assert_eq!(of(global), Reach::Global, "{global}");
        }
        assert_eq!(of("/ip4/0.0.0.0/tcp/1"), Reach::Nowhere);
        assert_eq!(of("/tcp/1"), Reach::Nowhere);
        let relay = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
        let circuit = format!("/ip4/1.2.3.4/tcp/1/p2p/{relay}/p2p-circuit");
        assert_eq!(of(&circuit), Reach::Global);
        assert!(is_circuit(&circuit.parse().unwrap()));
        assert!(!is_circuit(&"/ip4/1.2.3.4/tcp/1".parse().unwrap()));
    }

    #[test]
    fn the_peer_is_split_off_the_end_only() {
        let peer = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
        let address: Multiaddr = format!("/ip4/1.2.3.4/tcp/1/p2p/{peer}").parse().unwrap();
        let (found, rest) = split_peer(&address).unwrap();
        assert_eq!(found.to_string(), peer);
        assert_eq!(rest.to_string(), "/ip4/1.2.3.4/tcp/1");
        assert_eq!(split_peer(&rest), None);
    }
}
