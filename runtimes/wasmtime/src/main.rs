fn main() { lighter_wasmtime_engine::engine().unwrap(); }
