# What wamrx-sys leaves no choice about. CMake reads it before WAMR's own lists; .cargo/config.toml names it.

# The crate's build script follows opt-level: "s", as resident programs have it, would make the interpreter slow.
set(CMAKE_BUILD_TYPE Release)

# wasi-threads has no feature of the crate's.
set(WAMR_BUILD_LIB_WASI_THREADS 1)

# The feature `simd` takes its headers from the network; Debian's libsimde-dev has the same.
find_path(SIMDE_INCLUDE simde/wasm/simd128.h PATHS /usr/include /usr/local/include REQUIRED)
set(FETCHCONTENT_SOURCE_DIR_SIMDE ${SIMDE_INCLUDE})

# A memory is as large as its module says, also where WAMR believes that the rest is never used.
set(WAMR_BUILD_SHRUNK_MEMORY 0)
# For native code only, of which there is none. Otherwise the machine that builds decides.
set(WAMR_DISABLE_WRITE_GS_BASE 1)

# Standard output is the guest's: what WAMR prints there goes to a function of the runner's. Not for all files: libc-wasi
# would take it for a wish to have the guest's output there as well.
set_source_files_properties(
  ${CMAKE_SOURCE_DIR}/core/shared/platform/linux/platform_init.c
  ${CMAKE_SOURCE_DIR}/core/shared/utils/bh_log.c
  PROPERTIES COMPILE_DEFINITIONS BH_VPRINTF=lighter_wamr_print)

# Guests are hostile.
add_compile_options(-fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
