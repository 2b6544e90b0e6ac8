//! WasmEdge's plugins: shared libraries of the node's administrator, each with modules that guests may import.

use lighter_runtime_api::Error;
use wasmedge_sdk::plugin::PluginManager;
use wasmedge_sys::Instance;

use crate::engine::failed;

/// The plugins' modules, from the folder that the library looks in: `wasmedge/` beside it, where it is installed under
/// `/usr`. A look into a folder that is not there costs one system call.
///
/// # Errors
/// A plugin can't be loaded.
pub(crate) fn modules() -> Result<Vec<Instance>, Error> {
    PluginManager::load(None).map_err(|error| failed("load WasmEdge's plugins", &*error))?;
    PluginManager::auto_detect_plugins().map_err(|error| failed("load WasmEdge's plugins", &*error))
}
