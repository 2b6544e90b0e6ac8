//! What WasmEdge says: it returns a number and logs the reason, with the instruction and the function that it concerns.
#![allow(unsafe_code)]

use std::{
    slice,
    sync::{Mutex, PoisonError},
};

use wasmedge_sys::ffi;

/// Bytes that are kept. A guest may have the library complain as often as it likes.
const MOST: usize = 8 << 10;

static SAID: Mutex<String> = Mutex::new(String::new());

/// Keeps errors for [`take`], in place of writing them to the standard output.
pub(crate) fn keep() {
    // SAFETY: the callback is a function of this program's, which outlives the library's use of it.
    unsafe {
        ffi::WasmEdge_LogSetLevel(ffi::WasmEdge_LogLevel_Error);
        ffi::WasmEdge_LogSetCallback(Some(said));
    }
}

/// What was said since the last call, a line each.
pub(crate) fn take() -> String {
    let said = std::mem::take(&mut *SAID.lock().unwrap_or_else(PoisonError::into_inner));
    said.trim_end().to_owned()
}

extern "C" fn said(message: *const ffi::WasmEdge_LogMessage) {
    // SAFETY: the library passes a message that is valid during the call, or nothing.
    let Some(message) = (unsafe { message.as_ref() }) else { return };
    if message.Message.Buf.is_null() {
        return;
    }
    // SAFETY: the message's text has that many bytes, and is valid during the call.
    let text = unsafe { slice::from_raw_parts(message.Message.Buf.cast::<u8>(), message.Message.Length as usize) };
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() + text.len() < MOST {
        said.push_str(String::from_utf8_lossy(text).trim_end());
        said.push('\n');
    }
}
