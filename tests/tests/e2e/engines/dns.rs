//! A name server in a bed: what a guest asks that looks a name up.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::OnceLock,
    thread,
};

use lighter_tests::{Bed, Image, Suite};

/// The one name that it knows, and its address.
pub(super) const NAME: &str = "lighter.test";
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// RFC 1035, 4.1.1: the question follows a header of so many bytes.
const HEADER: usize = 12;
const NAME_ERROR: u8 = 3;
const TYPE_A: [u8; 2] = [0, 1];

/// Makes a guest's lookups go to the server.
pub(super) fn configure(image: Image) -> Image {
    image.file("/etc/resolv.conf", "nameserver 127.0.0.1\n").file("/etc/hosts", "127.0.0.1 localhost\n")
}

/// Answers in the bed's network from now on, until this process ends.
pub(super) fn serve(bed: &Bed) {
    static STARTED: [OnceLock<()>; Suite::ALL.len()] = [const { OnceLock::new() }; Suite::ALL.len()];
    STARTED[bed.suite() as usize].get_or_init(|| {
        let socket = bed.in_network(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("listen as a name server"));
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = answer(&buffer[..length]) {
                    // Who asked may have gone.
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
    });
}

/// RFC 1035, 4.1: the header, the question as it was asked, the address.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let name: Vec<u8> = NAME.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    let question = query.get(HEADER..)?;
    let end = question.iter().position(|byte| *byte == 0)?;
    let kind = question.get(end + 1..end + 3)?;
    let question = question.get(..end + 5)?;
    let known = question[..end].eq_ignore_ascii_case(&name);
    let found = known && kind == TYPE_A;

    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x81, 0x80 | if known { 0 } else { NAME_ERROR }, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(question);
    if found {
        // The name as a pointer to the question's, type A, class IN, a minute to live, four bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ADDRESS.octets());
    }
    Some(answer)
}
