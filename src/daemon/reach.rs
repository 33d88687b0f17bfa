//! Whether others can reach the web server, as far as this machine can tell.
//!
//! A service's `IPAddressDeny=` drops packets without an answer: the client waits until its time-out, and the server sees nothing. What is
//! sent is refused with EPERM, so one datagram to the server's own address shows it. Nothing leaves the machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// A port that a datagram may go to: discard (RFC 863).
const DISCARD: u16 = 9;

/// What is to be told of an address that is served beyond this machine.
pub(super) fn warning(listen: SocketAddr) -> Option<String> {
    let own = if listen.ip().is_unspecified() { outward(listen.is_ipv4())? } else { listen.ip() };
    if own.is_loopback() {
        return None;
    }
    let sent = UdpSocket::bind((own, 0)).and_then(|socket| socket.send_to(b"", (own, DISCARD)));
    sent.err().and_then(|error| refusal(own, &error))
}

fn refusal(own: IpAddr, error: &io::Error) -> Option<String> {
    (error.raw_os_error() == Some(libc::EPERM)).then(|| {
        format!(
            "packets of {own} are refused ({error}), as IPAddressDeny= of the service does: a client whose address IPAddressAllow= \
             does not name gets no answer from http.listen, and reports a timeout"
        )
    })
}

/// The address that this machine has to others. A socket that is connected says so; nothing is sent.
fn outward(is_ipv4: bool) -> Option<IpAddr> {
    // Addresses that are reserved for documentation (RFC 5737, RFC 3849).
    let (any, nobody): (IpAddr, IpAddr) = if is_ipv4 {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(203, 0, 113, 1).into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((nobody, DISCARD)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_system_is_told() {
        let own = IpAddr::from([192, 0, 2, 7]);
        let told = refusal(own, &io::Error::from_raw_os_error(libc::EPERM)).expect("a refusal");
        assert!(told.contains("192.0.2.7") && told.contains("IPAddressAllow="), "{told}");
        assert_eq!(refusal(own, &io::Error::from_raw_os_error(libc::ENETUNREACH)), None);
        assert_eq!(warning(([127, 0, 0, 1], 9488).into()), None);
    }
}
