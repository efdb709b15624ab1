//! What the targets share.

/// Panics of `openjp2` are caught where it is called and become errors: they are no finding. Any
/// other panic is one.
pub fn let_openjp2_panic() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let openjp2 = panic.location().is_some_and(|at| at.file().contains("openjp2"));
        if !openjp2 {
            abort(panic);
        }
    }));
}
