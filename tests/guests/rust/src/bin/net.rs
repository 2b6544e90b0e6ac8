//! The network as std sees it (only WASI 0.2 has sockets): `connect HOST:PORT`, `listen HOST:PORT`, `exchange HOST:PORT`
//! (listens there, connects to itself, and sends a line both ways) or `resolve NAME`; prints the outcome or `error: KIND: message` and exits with 1.

use std::{
    env,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    process::ExitCode,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["connect", address] => TcpStream::connect(address).map(|_| format!("connected to {address}")),
        ["listen", address] => TcpListener::bind(address).map(|_| format!("listening on {address}")),
        ["exchange", address] => exchange(address),
        ["resolve", name] => {
            (name, 0).to_socket_addrs().map(|addresses| format!("{:?}", addresses.collect::<Vec<_>>()))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("unknown operation {arguments:?}"))),
    };
    match outcome {
        Ok(outcome) => {
            println!("{outcome}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("error: {:?}: {error}", error.kind());
            ExitCode::FAILURE
        }
    }
}

fn exchange(address: &str) -> io::Result<String> {
    let listener = TcpListener::bind(address)?;
    let mut client = TcpStream::connect(address)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"to the server")?;
    let mut asked = [0; 13];
    server.read_exact(&mut asked)?;
    server.write_all(b"to the client")?;
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(format!("{}, {answer}", String::from_utf8_lossy(&asked)))
}
