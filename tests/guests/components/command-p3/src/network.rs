//! TCP and name lookup.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use wasip3::{
    sockets::{
        ip_name_lookup,
        types::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket},
    },
    wit_stream,
};

pub(crate) async fn resolve(name: &str) -> String {
    match ip_name_lookup::resolve_addresses(name.into()).await {
        Ok(addresses) => addresses.into_iter().map(text).collect::<Vec<_>>().join(" "),
        Err(error) => format!("error: {error:?}"),
    }
}

fn text(address: IpAddress) -> String {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(a, b, c, d).to_string(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => Ipv6Addr::new(a, b, c, d, e, f, g, h).to_string(),
    }
}

pub(crate) async fn exchange(address: SocketAddrV4) -> String {
    let [a, b, c, d] = address.ip().octets();
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: address.port(), address: (a, b, c, d) });
    match both_sides(address).await {
        Ok(text) => text,
        Err(error) => format!("error: {error:?}"),
    }
}

async fn both_sides(address: IpSocketAddress) -> Result<String, ErrorCode> {
    let listener = TcpSocket::create(IpAddressFamily::Ipv4)?;
    listener.bind(address)?;
    let mut clients = listener.listen()?;
    let client = TcpSocket::create(IpAddressFamily::Ipv4)?;
    client.connect(address).await?;
    let server = clients.next().await.ok_or(ErrorCode::InvalidState)?;
    let asked = pass(&client, &server, "to the server").await?;
    let answer = pass(&server, &client, "to the client").await?;
    Ok(format!("{asked}, {answer}"))
}

/// Sends a text and the end of the stream, and returns what comes out on the other side.
async fn pass(from: &TcpSocket, to: &TcpSocket, text: &str) -> Result<String, ErrorCode> {
    let (mut stream, data) = wit_stream::new();
    let sent = from.send(data);
    stream.write_all(text.as_bytes().to_vec()).await;
    drop(stream);
    let (received, _ended) = to.receive();
    let received = received.collect().await;
    sent.await?;
    Ok(String::from_utf8_lossy(&received).into_owned())
}
