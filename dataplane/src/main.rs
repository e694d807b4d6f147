//! nke (scaffold)
#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let demo = nke_dataplane::demo::MemoryDemo { duration: std::time::Duration::from_secs(3), filters: 1 };
    match nke_dataplane::demo::run_memory(&demo) {
        Ok(Ok(r)) => println!("{r}"),
        e => println!("{e:?}"),
    }
}
