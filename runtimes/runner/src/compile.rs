//! Gets native code for a module: from the cache, or from the engine's compiler, which is a process of its own.
//!
//! A large module starts on code that was made in one pass, while a process of low priority makes the better code that
//! the next start finds.

use std::{
    cell::{Cell, OnceCell},
    env,
    fs::File,
    io::{self, Read, Seek},
    num::NonZeroU32,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lighter_oci::{Cache, Entry, Key, Module, Plan, Slot, Tier};
use lighter_runtime_api::{Backend, Code, Compiler, Error as EngineError};
use nix::{
    errno::Errno,
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{getpid, getppid},
};

use crate::{Error, background, compiler};

/// Bytes of a module from which on its first start does not wait for the optimiser, which takes some 0.4 s for each MB.
const LARGE: u64 = 1 << 20;
/// How long a start may wait for a compiler without a word about it.
const LATE: Duration = Duration::from_secs(1);
/// Bytes of a module from which on nobody compiles it: a compiler has 6 GiB for it, its code and all in between.
const MODULE: u64 = 1 << 30;
/// Bytes that are read of what a compiler says.
const SAID: u64 = 64 << 10;
/// Asks a compiler for code that is made quickly.
pub(crate) const BASELINE: &str = "--baseline";

/// What the engine loaded, and what there is to tell about how its code came about.
pub(crate) struct Compiled<L> {
    pub(crate) loaded: L,
    /// For the log, a line each.
    pub(crate) notes: Vec<String>,
    /// Id of the process that makes better code.
    pub(crate) background: Option<u32>,
}

/// Loads the guest's module, compiling it first where the engine needs that and nobody did it before.
pub(crate) fn load<B: Backend>(backend: &B, plan: &Plan, mut module: Module) -> Result<Compiled<B::Loaded>, Error> {
    let identity = backend.identity();
    let Some(compiler) = identity.compiler else {
        let path = module.path.clone();
        let code = Code { kind: module.kind, file: module.file, path: path.clone() };
        let loaded = backend.load(code, &plan.guest).map_err(|source| Error::Load { module: path, source })?;
        return Ok(Compiled { loaded, notes: Vec::new(), background: None });
    };
    let cache = Cache::open(&plan.cache, plan.cache_bytes)?;
    let digest = digest(&mut module)?;
    let key = Key { fingerprint: compiler.fingerprint.clone(), digest, tier: Tier::Optimised };
    let slots = Some(Slots::new(plan.compilers));
    let work = Work { cache: &cache, key, compiler: &compiler, slots, module: &module, copy: OnceCell::new() };

    let mut notes = Vec::new();
    let (mut entry, mut tier) = work.code(&mut notes)?;
    let mut loaded = backend.load(code(module.kind, &entry)?, &plan.guest);
    if matches!(loaded, Err(EngineError::StaleCode { .. })) && !entry.made {
        // Sound, but made by another engine or for another CPU: throw it away and make it here.
        cache.discard(&entry)?;
        (entry, tier) = work.code(&mut notes)?;
        loaded = backend.load(code(module.kind, &entry)?, &plan.guest);
    }
    let loaded = loaded.map_err(|source| Error::Load { module: module.path.clone(), source })?;
    notes.extend(work.slots.as_ref().and_then(|slots| slots.note(&work.key.digest)));
    let background = if tier == Tier::Baseline { work.improve(plan, &mut notes)? } else { None };
    Ok(Compiled { loaded, notes, background })
}

/// The cache that is to be filled, and on what terms.
pub(crate) struct Target<'a> {
    /// The folder.
    pub(crate) cache: &'a Path,
    /// Bytes that it may hold for each engine.
    pub(crate) cache_bytes: u64,
    /// Compilers that may be at work at once; `None` for as many as [`compiler::at_once`] says.
    pub(crate) compilers: Option<NonZeroU32>,
    /// Whether nobody waits for it.
    pub(crate) in_background: bool,
}

/// Fills the cache with optimised code for a module. Returns its digest, and whether it had to be made.
///
/// In the background it takes its turn, and leaves a module to whoever compiles it already.
pub(crate) fn fill(compiler: &Compiler, target: &Target<'_>, mut module: Module) -> Result<(String, bool), Error> {
    let Target { cache, cache_bytes, compilers, in_background } = *target;
    let cache = Cache::open(cache, cache_bytes)?;
    let digest = digest(&mut module)?;
    let key = Key { fingerprint: compiler.fingerprint.clone(), digest: digest.clone(), tier: Tier::Optimised };
    let _turn = if in_background { Some(cache.background_turn()?) } else { None };
    let slots = (!in_background).then(|| Slots::new(compilers));
    let work = Work { cache: &cache, key, compiler, slots, module: &module, copy: OnceCell::new() };
    let made = work.make(Tier::Optimised);
    if let Err(error @ Error::Compile { .. }) = &made
        && in_background
    {
        cache.note_failure(&work.key, &error.to_string())?;
    }
    // Whoever runs on the baseline code has it open.
    let made = made?.made;
    cache.remove(&work.key.of_tier(Tier::Baseline))?;
    Ok((digest, made))
}

/// One module's code: where it is kept and how it is made.
struct Work<'a> {
    cache: &'a Cache,
    /// Of the optimised code.
    key: Key,
    compiler: &'a Compiler,
    /// What bounds compilers at once; `None` in the background, where one is at work at a time.
    slots: Option<Slots>,
    module: &'a Module,
    copy: OnceCell<Module>,
}

/// The bound on compilers that somebody waits for.
struct Slots {
    /// How many may be at work at once.
    most: Option<NonZeroU32>,
    /// How long it was waited for one.
    waited: Cell<Duration>,
}

impl Work<'_> {
    /// The best code that there is soon.
    fn code(&self, notes: &mut Vec<String>) -> Result<(Entry, Tier), Error> {
        if let Some(entry) = self.cache.get(&self.key)? {
            return Ok((entry, Tier::Optimised));
        }
        if self.compiler.baseline && self.module.len >= LARGE {
            match self.baseline()? {
                Ok(entry) => return Ok((entry, Tier::Baseline)),
                Err(why) => notes.push(format!(
                    "module sha256:{}: no baseline code, so its first start waited for the optimiser: {why}",
                    self.key.digest
                )),
            }
        }
        Ok((self.make(Tier::Optimised)?, Tier::Optimised))
    }

    /// Baseline code, or why there is none.
    fn baseline(&self) -> Result<Result<Entry, String>, Error> {
        let key = self.key.of_tier(Tier::Baseline);
        if let Some(why) = self.cache.failure(&key)? {
            return Ok(Err(why));
        }
        match self.make(Tier::Baseline) {
            Err(Error::Compile { why, .. }) => {
                self.cache.note_failure(&key, &why)?;
                Ok(Err(why))
            }
            made => made.map(Ok),
        }
    }

    fn make(&self, tier: Tier) -> Result<Entry, Error> {
        self.cache.get_or_make(&self.key.of_tier(tier), |output| {
            // Inside of the key's lock: whoever wants the same module waits there, and takes no slot.
            let _slot = self.slots.as_ref().map(|slots| slots.wait(self.cache)).transpose()?;
            run(self.compiler, tier, self.copy()?, output)
        })
    }

    /// Has better code made, unless somebody does so already or it failed a short while ago.
    fn improve(&self, plan: &Plan, notes: &mut Vec<String>) -> Result<Option<u32>, Error> {
        let name = format!("module sha256:{}", self.key.digest);
        if let Some(why) = self.cache.failure(&self.key)? {
            notes.push(format!("{name}: runs on baseline code, because the optimiser failed: {why}"));
            return Ok(None);
        }
        if self.cache.is_being_made(&self.key)? {
            return Ok(None);
        }
        notes.push(format!("{name}: runs on baseline code; optimised code is being made for its next start"));
        let copy = rewound(&self.copy()?.file).map_err(|source| self.unreadable(source))?;
        background::compile(copy, &plan.cache, plan.cache_bytes).map(Some)
    }

    /// The module in a file that nobody else can write, with the digest that its code is to be known by: whoever owns the
    /// original could change it between hashing and compiling. Nor does it keep the container's root filesystem busy.
    fn copy(&self) -> Result<&Module, Error> {
        if let Some(copy) = self.copy.get() {
            return Ok(copy);
        }
        let mut scratch = self.cache.scratch()?;
        rewound(&self.module.file)
            .and_then(|file| io::copy(&mut file.take(self.module.len), &mut scratch))
            .and_then(|_| scratch.rewind())
            .map_err(|source| self.unreadable(source))?;
        let mut copy = Module::of_file(scratch, &self.module.path.to_string_lossy(), None)?;
        if copy.digest().map_err(|source| self.unreadable(source))? != self.key.digest {
            return Err(Error::ModuleChanged { path: self.module.path.clone() });
        }
        Ok(self.copy.get_or_init(|| copy))
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::ReadModule { path: self.module.path.clone(), source }
    }
}

/// A module's digest, unless nobody compiles one so large. Its file may be a container's, which could make it any length, and
/// takes no disk for that.
fn digest(module: &mut Module) -> Result<String, Error> {
    if module.len > MODULE {
        return Err(Error::ModuleTooLarge { path: module.path.clone(), size: module.len, most: MODULE });
    }
    module.digest().map_err(|source| Error::ReadModule { path: module.path.clone(), source })
}

fn code(kind: lighter_oci::Kind, entry: &Entry) -> Result<Code, Error> {
    let file = entry.file.try_clone().map_err(|source| Error::ReadModule { path: entry.path.clone(), source })?;
    Ok(Code { kind, file, path: entry.path.clone() })
}

impl Slots {
    fn new(most: Option<NonZeroU32>) -> Self {
        Self { most, waited: Cell::default() }
    }

    /// Waits for one, as long as a compilation may take.
    fn wait(&self, cache: &Cache) -> Result<Slot, Error> {
        let begun = Instant::now();
        let slot = cache.compiler_slot(self.most.unwrap_or_else(compiler::at_once), compiler::TIME)?;
        self.waited.set(self.waited.get() + begun.elapsed());
        Ok(slot)
    }

    /// For the log, where a start was late for it.
    fn note(&self, digest: &str) -> Option<String> {
        let waited = self.waited.get();
        (waited >= LATE).then(|| {
            let seconds = waited.as_secs_f64();
            format!("module sha256:{digest}: its start waited {seconds:.1} s until fewer compilers were at work")
        })
    }
}

/// Runs the compiler: the module on its standard input, code to `output`. It bounds and seals itself.
fn run(compiler: &Compiler, tier: Tier, module: &Module, output: &File) -> Result<(), Error> {
    let runner = env::current_exe().unwrap_or_default();
    let path = runner.with_file_name(compiler.program);
    let failed = |source| Error::RunProgram { path: path.clone(), source };
    let mut child = tethered(&mut Command::new(&path))
        .args((tier == Tier::Baseline).then_some(BASELINE))
        .env_clear()
        .stdin(rewound(&module.file).map_err(failed)?)
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut said = Vec::new();
    // No more than that, for a module may have taken it over.
    let read = child.stderr.take().map_or(Ok(0), |stderr| stderr.take(SAID).read_to_end(&mut said));
    let status = read.and_then(|_| child.wait()).map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let why = match (said.lines().last(), status.signal()) {
        (Some(line), None) => line.to_owned(),
        // An allocation failure aborts, the CPU limit sends SIGXCPU.
        (_, Some(signal)) => format!(
            "the compiler was ended by signal {signal}: the module needs more memory or time than a compilation may take"
        ),
        (None, None) => format!("the compiler ended with {status}"),
    };
    Err(Error::Compile { module: module.path.clone(), why })
}

/// Has a compiler end with this process, from before its first instruction: nobody else takes its code, and it would work
/// beside those that are counted.
#[allow(unsafe_code)]
fn tethered(command: &mut Command) -> &mut Command {
    let parent = getpid();
    let tether = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // It may have been killed before that.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec it makes two system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(tether) }
}

fn rewound(mut file: &File) -> io::Result<File> {
    file.rewind()?;
    file.try_clone()
}
