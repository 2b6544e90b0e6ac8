//! WAMR behind safe types. All that is unsafe about its C interface is in here.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    mem, ptr,
    sync::OnceLock,
};

use lighter_runtime_api::{Error, Outcome};
use wamrx_sys as sys;

use crate::wasi::Wasi;

/// Threads of a guest beside its first. Each takes a stack for its frames, and they share what the plan keeps back from
/// linear memory for the runner: 16 MiB.
const THREADS: u32 = 64;

/// Bytes of a page of linear memory.
const PAGE: u64 = 64 << 10;

/// Bytes of a backtrace. A recursion that ran out of stack has thousands of frames, of which the innermost tell it all.
const BACKTRACE: usize = 4 << 10;

/// Bytes of what WAMR says of a module that it refuses.
const MESSAGE: usize = 256;

/// The function that a command exports.
const ENTRY: &CStr = c"_start";

unsafe extern "C" {
    /// Source: `core/shared/platform/include/platform_api_extension.h`.
    fn os_set_signal_number_for_blocking_op(signal: c_int);
}

/// WAMR's own messages, which it would print on the guest's standard output. What matters of them comes as an error.
#[unsafe(no_mangle)]
extern "C" fn lighter_wamr_print(_format: *const c_char, _arguments: *mut c_void) -> c_int {
    0
}

/// Prepares this process, once; what it forks is prepared as well.
pub(crate) fn start() -> Result<(), Error> {
    static STARTED: OnceLock<bool> = OnceLock::new();
    let started = *STARTED.get_or_init(|| {
        // What wakes threads out of their calls when another one trapped. By default that is SIGUSR1, whose handler is the
        // runner's; nobody misses SIGURG, which does nothing unless somebody asks for it.
        // SAFETY: it stores a number, which `wasm_runtime_full_init` reads.
        unsafe { os_set_signal_number_for_blocking_op(libc::SIGURG) };
        let mut arguments = sys::RuntimeInitArgs {
            mem_alloc_type: sys::Alloc_With_System_Allocator,
            max_thread_num: THREADS,
            running_mode: sys::Mode_Interp,
            ..Default::default()
        };
        // SAFETY: the arguments live through the call, which copies what it needs; it is made once.
        unsafe { sys::wasm_runtime_full_init(&raw mut arguments) }
    });
    if started {
        Ok(())
    } else {
        Err(Error::Engine { operation: "start WAMR", why: "it does not say why; is there memory left?".to_owned() })
    }
}

/// Such as `2.4.3`.
pub(crate) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let (mut major, mut minor, mut patch) = (0, 0, 0);
        // SAFETY: it writes three numbers to where they are.
        unsafe { sys::wasm_runtime_get_version(&raw mut major, &raw mut minor, &raw mut patch) };
        format!("{major}.{minor}.{patch}")
    })
}

/// What a guest may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes for the frames of each thread.
    pub(crate) stack: u32,
    /// Bytes of linear memory; `None` where the module alone says.
    pub(crate) memory: Option<u64>,
}

/// An import of a module.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) module: String,
    pub(crate) name: String,
    pub(crate) function: bool,
    pub(crate) memory: bool,
    /// Whether WAMR found it, with the type that the module asks for.
    pub(crate) linked: bool,
}

/// A module that WAMR has read and checked. It is never unloaded: the process ends with its guest.
#[derive(Debug)]
pub(crate) struct Module(sys::wasm_module_t);

impl Module {
    /// Reads a module. The process must have [`start`]ed.
    ///
    /// # Errors
    /// What WAMR says of it, in one line.
    pub(crate) fn parse(mut bytes: Vec<u8>) -> Result<Self, String> {
        let mut message = [0; MESSAGE];
        let size = u32::try_from(bytes.len()).map_err(|_| "it has 4 GiB or more".to_owned())?;
        // What outlives the call is copied, so that the bytes need not stay.
        let options = sys::LoadArgs { name: c"".as_ptr().cast_mut(), wasm_binary_freeable: true, ..Default::default() };
        // SAFETY: bytes and message are writable for their lengths; WAMR changes the bytes.
        let module = unsafe {
            sys::wasm_runtime_load_ex(
                bytes.as_mut_ptr(),
                size,
                &raw const options,
                message.as_mut_ptr(),
                message.len() as u32,
            )
        };
        if module.is_null() {
            return Err(text(&message).trim_start_matches("WASM module load failed: ").to_owned());
        }
        // SAFETY: it reads a field of a module that is loaded.
        if !unsafe { sys::wasm_runtime_is_underlying_binary_freeable(module) } {
            // Not expected of a module that was asked for in this way; then it refers to the bytes to the end.
            bytes.leak();
        }
        // Reading took more than the module keeps.
        // SAFETY: it gives back what glibc's allocator has free.
        unsafe { libc::malloc_trim(0) };
        Ok(Self(module))
    }

    pub(crate) fn imports(&self) -> impl Iterator<Item = Import> {
        // SAFETY: the module is loaded; the call reads its number of imports.
        let count = unsafe { sys::wasm_runtime_get_import_count(self.0) };
        (0..count).map(|index| {
            // SAFETY: plain numbers and pointers, for which zero is a value.
            let mut import: sys::wasm_import_t = unsafe { mem::zeroed() };
            // SAFETY: the index is below the count, and the names live as long as the module.
            let (module, name) = unsafe {
                sys::wasm_runtime_get_import_type(self.0, index, &raw mut import);
                (owned(import.module_name), owned(import.name))
            };
            Import {
                module,
                name,
                function: import.kind == sys::WASM_IMPORT_EXPORT_KIND_FUNC,
                memory: import.kind == sys::WASM_IMPORT_EXPORT_KIND_MEMORY,
                linked: import.linked,
            }
        })
    }

    /// Whether it exports the function that a command is run by. WAMR has checked that one's type.
    pub(crate) fn is_command(&self) -> bool {
        self.exports().any(|export| {
            // SAFETY: the name lives as long as the module.
            let name = unsafe { CStr::from_ptr(export.name) };
            export.kind == sys::WASM_IMPORT_EXPORT_KIND_FUNC && name == ENTRY
        })
    }

    fn exports(&self) -> impl Iterator<Item = sys::wasm_export_t> {
        // SAFETY: the module is loaded; the call reads its number of exports.
        let count = unsafe { sys::wasm_runtime_get_export_count(self.0) };
        (0..count).map(|index| {
            // SAFETY: plain numbers and pointers, for which zero is a value.
            let mut export: sys::wasm_export_t = unsafe { mem::zeroed() };
            // SAFETY: the index is below the count.
            unsafe { sys::wasm_runtime_get_export_type(self.0, index, &raw mut export) };
            export
        })
    }

    /// Runs it to its end, which is also the end of its threads: the caller ends the process.
    pub(crate) fn run(&self, wasi: &Wasi, bounds: &Bounds) -> Outcome {
        let folders = pointers(&wasi.folders);
        let mapped = pointers(&wasi.mapped);
        let env = pointers(&wasi.env);
        let args = pointers(&wasi.args);
        let addresses = pointers(&wasi.addresses);
        let names = pointers(&wasi.names);
        let arguments = sys::InstantiationArgs {
            default_stack_size: bounds.stack,
            // Memory for natives that want to hand some to the guest: none does.
            host_managed_heap_size: 0,
            // Zero is no bound.
            max_memory_pages: bounds.memory.map_or(0, |bytes| u32::try_from(bytes / PAGE).unwrap_or(u32::MAX).max(1)),
        };
        let mut message = [0; MESSAGE];
        // SAFETY: all arrays and what they point to live to the end of this function, and WAMR, which keeps the arrays'
        // addresses in the module, reads them during instantiation only. It writes to none of them, for all its `char *`.
        let instance = unsafe {
            sys::wasm_runtime_set_wasi_args_ex(
                self.0,
                folders.as_ptr().cast_mut(),
                folders.len() as u32,
                mapped.as_ptr().cast_mut(),
                mapped.len() as u32,
                env.as_ptr().cast_mut(),
                env.len() as u32,
                args.as_ptr().cast::<*mut c_char>().cast_mut(),
                args.len() as c_int,
                libc::STDIN_FILENO.into(),
                libc::STDOUT_FILENO.into(),
                libc::STDERR_FILENO.into(),
            );
            sys::wasm_runtime_set_wasi_addr_pool(self.0, addresses.as_ptr().cast_mut(), addresses.len() as u32);
            sys::wasm_runtime_set_wasi_ns_lookup_pool(self.0, names.as_ptr().cast_mut(), names.len() as u32);
            sys::wasm_runtime_instantiate_ex(self.0, &raw const arguments, message.as_mut_ptr(), message.len() as u32)
        };
        if instance.is_null() {
            // Data or elements that don't fit, or a trap of the module's start function.
            return Outcome::Trapped(format!("instantiate module: {}", text(&message)));
        }
        // WAMR bounds growth only. Nothing of the memory is touched yet but what the module's data fills.
        let memory = memory_of(instance);
        if let Some(bound) = bounds.memory.filter(|&bound| memory > bound) {
            return Outcome::Trapped(format!(
                "instantiate module: it starts with {memory} bytes of memory, and the container's limit leaves {bound}"
            ));
        }
        // SAFETY: the instance is alive, and so is what it runs in.
        let environment = unsafe { sys::wasm_runtime_get_exec_env_singleton(instance) };
        if !environment.is_null() {
            give_back_stack(environment.cast(), bounds.stack as usize);
        }
        // SAFETY: the instance is alive; `_start` takes no arguments.
        if unsafe { sys::wasm_application_execute_main(instance, 0, ptr::null_mut()) } {
            // SAFETY: the instance is alive.
            let code = unsafe { sys::wasm_runtime_get_wasi_exit_code(instance) };
            // A process's exit code has eight bits; the kernel would cut it the same way.
            return Outcome::Exited(code.to_le_bytes()[0]);
        }
        // SAFETY: null, or a string in the instance.
        let exception = unsafe {
            let exception = sys::wasm_runtime_get_exception(instance);
            if exception.is_null() { "unknown".to_owned() } else { owned(exception) }
        };
        Outcome::Trapped(format!(
            "wasm trap: {}\nwasm backtrace:\n{}",
            exception.trim_start_matches("Exception: "),
            backtrace(environment)
        ))
    }
}

/// Bytes of an instance's linear memory.
fn memory_of(instance: sys::wasm_module_inst_t) -> u64 {
    // SAFETY: the instance is alive, and the memory is its own. WAMR makes one page of a memory that can't grow.
    unsafe {
        let memory = sys::wasm_runtime_get_default_memory(instance);
        if memory.is_null() {
            return 0;
        }
        sys::wasm_memory_get_cur_page_count(memory) * sys::wasm_memory_get_bytes_per_page(memory)
    }
}

/// The frames of the guest's first thread when it ended, the innermost first.
fn backtrace(environment: sys::wasm_exec_env_t) -> String {
    if environment.is_null() {
        return String::new();
    }
    let mut buffer = vec![0; BACKTRACE];
    // SAFETY: the environment lives as long as its instance, and the buffer is writable for its length less one.
    unsafe { sys::wasm_runtime_dump_call_stack_to_buf(environment, buffer.as_mut_ptr(), BACKTRACE as u32 - 1) };
    text(&buffer).trim().to_owned()
}

/// Gives back the pages of a stack that WAMR has zeroed, and thereby touched, from one end to the other. There is nothing
/// in it yet, and the kernel hands out zeroed pages again.
///
/// `environment` is one allocation: a header, then `stack` bytes.
fn give_back_stack(environment: *mut u8, stack: usize) {
    const HOST_PAGE: usize = 4 << 10;
    // The header has a few hundred bytes. Leaving out a page leaves it out.
    let start = (environment as usize + HOST_PAGE).next_multiple_of(HOST_PAGE);
    let end = (environment as usize + stack) / HOST_PAGE * HOST_PAGE;
    if end > start {
        let address = environment.wrapping_add(start - environment as usize);
        // SAFETY: whole pages inside of one allocation of glibc's, which are private and anonymous. No function of the
        // guest's is active, so there is no frame in them; a frame's fields are written before they are read. Where the
        // system's pages are larger, the kernel refuses and nothing is lost.
        unsafe { libc::madvise(address.cast(), end - start, libc::MADV_DONTNEED) };
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

/// The text up to the first zero byte, in one line.
fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|&c| c.cast_unsigned()).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// # Safety
/// `string` is a C string.
unsafe fn owned(string: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}
