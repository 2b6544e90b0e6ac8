//! Modules and their execution by WasmEdge's C interface, where the sdk would panic at what a hostile module may hold,
//! or tell less than the library does.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    ptr::{self, NonNull},
    slice,
};

use wasmedge_sdk::AsInstance;
use wasmedge_sys::{Config, ffi};

use crate::engine;

/// What the library says of a step that failed.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// A module that was parsed, with its code mapped.
pub(crate) struct Module(NonNull<ffi::WasmEdge_ASTModuleContext>);

/// A function that a module wants, or something else.
pub(crate) struct Import<'a> {
    module: &'a Module,
    import: *const ffi::WasmEdge_ImportTypeContext,
}

/// What runs a module. There is one in a process, which ends with it: nothing is freed.
pub(crate) struct Executor {
    executor: NonNull<ffi::WasmEdge_ExecutorContext>,
    store: NonNull<ffi::WasmEdge_StoreContext>,
}

/// A module with its memory.
pub(crate) struct Instance(NonNull<ffi::WasmEdge_ModuleInstanceContext>);

impl Module {
    /// Maps compiled code. Executes nothing of the guest's.
    ///
    /// # Safety
    /// The file holds what the compiler made and nobody changes it: its code becomes part of this process.
    pub(crate) unsafe fn map(config: &Config, path: &CStr) -> Result<Self, Failure> {
        let mut module = ptr::null_mut();
        // SAFETY: the configuration and the path are valid during the calls, and the loader is deleted once.
        unsafe {
            let loader = ffi::WasmEdge_LoaderCreate(config.as_ptr());
            let parsed = check(ffi::WasmEdge_LoaderParseFromFile(loader, &raw mut module, path.as_ptr()));
            ffi::WasmEdge_LoaderDelete(loader);
            parsed?;
        }
        NonNull::new(module).map(Self).ok_or_else(no_memory)
    }

    /// Compares the module with the rules of WebAssembly, and with the configuration's proposals.
    pub(crate) fn validate(&self, config: &Config) -> Result<(), Failure> {
        // SAFETY: configuration and module are valid during the calls, and the validator is deleted once.
        unsafe {
            let validator = ffi::WasmEdge_ValidatorCreate(config.as_ptr());
            let valid = check(ffi::WasmEdge_ValidatorValidate(validator, self.0.as_ptr()));
            ffi::WasmEdge_ValidatorDelete(validator);
            valid
        }
    }

    /// What it wants.
    pub(crate) fn imports(&self) -> Vec<Import<'_>> {
        // SAFETY: the module is valid, and the list has room for as many as it is told.
        let list = unsafe {
            let mut list = vec![ptr::null(); ffi::WasmEdge_ASTModuleListImportsLength(self.0.as_ptr()) as usize];
            ffi::WasmEdge_ASTModuleListImports(self.0.as_ptr(), list.as_mut_ptr(), length(&list));
            list
        };
        list.into_iter().filter(|import| !import.is_null()).map(|import| Import { module: self, import }).collect()
    }

    /// Whether it exports a function of this name that takes and returns nothing.
    pub(crate) fn exports_command(&self, name: &str) -> bool {
        // SAFETY: the module is valid, the list has room for as many as it is told, and what it holds belongs to the
        // module.
        unsafe {
            let mut list = vec![ptr::null(); ffi::WasmEdge_ASTModuleListExportsLength(self.0.as_ptr()) as usize];
            ffi::WasmEdge_ASTModuleListExports(self.0.as_ptr(), list.as_mut_ptr(), length(&list));
            list.into_iter().filter(|export| !export.is_null()).any(|export| {
                let kind = ffi::WasmEdge_ExportTypeGetExternalType(export);
                kind == ffi::WasmEdge_ExternalType_Function
                    && text(ffi::WasmEdge_ExportTypeGetExternalName(export)) == name
                    && signature(ffi::WasmEdge_ExportTypeGetFunctionType(self.0.as_ptr(), export))
                        .is_some_and(|(takes, returns)| takes.is_empty() && returns.is_empty())
            })
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: it is ours, and deleted once.
        unsafe { ffi::WasmEdge_ASTModuleDelete(self.0.as_ptr()) }
    }
}

impl Import<'_> {
    /// The name of the module that is to have it.
    pub(crate) fn module(&self) -> String {
        // SAFETY: the import belongs to the module, which outlives it.
        unsafe { text(ffi::WasmEdge_ImportTypeGetModuleName(self.import)) }
    }

    /// Its name in that module.
    pub(crate) fn name(&self) -> String {
        // SAFETY: as above.
        unsafe { text(ffi::WasmEdge_ImportTypeGetExternalName(self.import)) }
    }

    /// Whether `provider` has a function of this name and type. Nobody provides anything but functions.
    pub(crate) fn is_function_of(&self, provider: &dyn AsInstance) -> bool {
        // SAFETY: import, module and provider are valid during the calls, and what is asked of them belongs to them.
        unsafe {
            if ffi::WasmEdge_ImportTypeGetExternalType(self.import) != ffi::WasmEdge_ExternalType_Function {
                return false;
            }
            let name = ffi::WasmEdge_ImportTypeGetExternalName(self.import);
            let function = ffi::WasmEdge_ModuleInstanceFindFunction(provider.as_ptr(), name);
            if function.is_null() {
                return false;
            }
            let has = signature(ffi::WasmEdge_FunctionInstanceGetFunctionType(function));
            let wants = signature(ffi::WasmEdge_ImportTypeGetFunctionType(self.module.0.as_ptr(), self.import));
            let (Some(has), Some(wants)) = (has, wants) else { return false };
            same(&has.0, &wants.0) && same(&has.1, &wants.1)
        }
    }
}

impl Executor {
    pub(crate) fn new(config: &Config) -> Result<Self, Failure> {
        // SAFETY: the configuration is valid during the call; there are no statistics.
        let (executor, store) =
            unsafe { (ffi::WasmEdge_ExecutorCreate(config.as_ptr(), ptr::null_mut()), ffi::WasmEdge_StoreCreate()) };
        match (NonNull::new(executor), NonNull::new(store)) {
            (Some(executor), Some(store)) => Ok(Self { executor, store }),
            _ => Err(no_memory()),
        }
    }

    /// Offers a module of the host's to those that are instantiated. It must live as long as they do.
    pub(crate) fn offer(&mut self, provider: &dyn AsInstance) -> Result<(), Failure> {
        // SAFETY: all three are valid.
        unsafe {
            check(ffi::WasmEdge_ExecutorRegisterImport(self.executor.as_ptr(), self.store.as_ptr(), provider.as_ptr()))
        }
    }

    /// Makes the module's memory and runs its start function.
    pub(crate) fn instantiate(&mut self, module: &Module) -> Result<Instance, Failure> {
        let mut instance = ptr::null_mut();
        // SAFETY: all are valid; the module was validated.
        unsafe {
            check(ffi::WasmEdge_ExecutorInstantiate(
                self.executor.as_ptr(),
                &raw mut instance,
                self.store.as_ptr(),
                module.0.as_ptr(),
            ))?;
        }
        NonNull::new(instance).map(Instance).ok_or_else(no_memory)
    }

    /// Runs an exported function that takes and returns nothing, until it returns or the guest exits.
    pub(crate) fn call(&mut self, instance: &Instance, name: &str) -> Result<(), Failure> {
        let Ok(name) = CString::new(name) else { return Err(Failure(format!("no function {name:?}"))) };
        // SAFETY: all are valid; a function that isn't there is refused by the library.
        unsafe {
            let name = ffi::WasmEdge_StringWrap(name.as_ptr(), name.count_bytes() as u32);
            let function = ffi::WasmEdge_ModuleInstanceFindFunction(instance.0.as_ptr(), name);
            check(ffi::WasmEdge_ExecutorInvoke(self.executor.as_ptr(), function, ptr::null(), 0, ptr::null_mut(), 0))
        }
    }
}

/// A guest that exits is no failure.
fn check(result: ffi::WasmEdge_Result) -> Result<(), Failure> {
    // SAFETY: the functions take any result; a message is a constant of the library's.
    unsafe {
        if ffi::WasmEdge_ResultOK(result) {
            return Ok(());
        }
        let message = ffi::WasmEdge_ResultGetMessage(result);
        let message = if message.is_null() { "failed".into() } else { CStr::from_ptr(message).to_string_lossy() };
        Err(Failure(engine::explain(&message)))
    }
}

fn no_memory() -> Failure {
    Failure("out of memory".to_owned())
}

/// What a function takes and returns.
///
/// # Safety
/// The type is valid, or null.
unsafe fn signature(
    function: *const ffi::WasmEdge_FunctionTypeContext,
) -> Option<(Vec<ffi::WasmEdge_ValType>, Vec<ffi::WasmEdge_ValType>)> {
    if function.is_null() {
        return None;
    }
    let empty = |len| vec![ffi::WasmEdge_ValType { Data: [0; 8] }; len as usize];
    // SAFETY: the type is valid, and the lists have room for as many as they are told.
    unsafe {
        let mut takes = empty(ffi::WasmEdge_FunctionTypeGetParametersLength(function));
        ffi::WasmEdge_FunctionTypeGetParameters(function, takes.as_mut_ptr(), length(&takes));
        let mut returns = empty(ffi::WasmEdge_FunctionTypeGetReturnsLength(function));
        ffi::WasmEdge_FunctionTypeGetReturns(function, returns.as_mut_ptr(), length(&returns));
        Some((takes, returns))
    }
}

fn same(one: &[ffi::WasmEdge_ValType], other: &[ffi::WasmEdge_ValType]) -> bool {
    // SAFETY: the function takes any two types.
    let equal = |(&one, &other)| unsafe { ffi::WasmEdge_ValTypeIsEqual(one, other) };
    one.len() == other.len() && one.iter().zip(other).all(equal)
}

/// # Safety
/// The string is the library's, and valid during the call.
unsafe fn text(string: ffi::WasmEdge_String) -> String {
    if string.Buf.is_null() {
        return String::new();
    }
    // SAFETY: the string has that many bytes.
    let bytes = unsafe { slice::from_raw_parts(string.Buf.cast::<u8>(), string.Length as usize) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// As the C interface counts. The lists come from 32-bit lengths.
fn length<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}
