//! The page: what is under `page/`, built in.

/// A file of the page.
pub(crate) struct Asset {
    pub(crate) content_type: &'static str,
    pub(crate) content: &'static str,
}

const SVG: &str = "image/svg+xml";

/// The file at `path`.
pub(crate) fn asset(path: &str) -> Option<Asset> {
    let (content_type, content) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("../page/page.html")),
        "/page.css" => ("text/css; charset=utf-8", include_str!("../page/page.css")),
        "/page.js" => ("text/javascript; charset=utf-8", include_str!("../page/page.js")),
        "/layout.js" => ("text/javascript; charset=utf-8", include_str!("../page/layout.js")),
        "/icon.svg" => (SVG, include_str!("../page/icon.svg")),
        _ => return None,
    };
    Some(Asset { content_type, content })
}
