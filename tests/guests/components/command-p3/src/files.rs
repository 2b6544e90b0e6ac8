//! Files beneath `/`.

use wasip3::{
    filesystem::{
        preopens,
        types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags},
    },
    wit_stream,
};

pub(crate) async fn read(path: &str) -> String {
    match open(path, OpenFlags::empty(), DescriptorFlags::READ).await {
        Ok(file) => {
            let (content, _ended) = file.read_via_stream(0);
            String::from_utf8_lossy(&content.collect().await).into_owned()
        }
        Err(error) => format!("error: {error:?}"),
    }
}

pub(crate) async fn write(path: &str, text: &str) -> String {
    let file = match open(path, OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE).await {
        Ok(file) => file,
        Err(error) => return format!("error: {error:?}"),
    };
    let (mut stream, data) = wit_stream::new();
    let written = file.write_via_stream(data, 0);
    stream.write_all(text.as_bytes().to_vec()).await;
    drop(stream);
    match written.await {
        Ok(()) => "done".into(),
        Err(error) => format!("error: {error:?}"),
    }
}

async fn open(path: &str, how: OpenFlags, access: DescriptorFlags) -> Result<Descriptor, ErrorCode> {
    let root = preopens::get_directories().into_iter().find(|(_, name)| name == "/");
    let (root, _) = root.ok_or(ErrorCode::NoEntry)?;
    root.open_at(PathFlags::SYMLINK_FOLLOW, path.trim_start_matches('/').into(), how, access).await
}
