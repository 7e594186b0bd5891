/// What may be configured of images.
struct ImageSettings: Sendable, Equatable {
  /// Layers that are fetched at the same time, over all pulls; Docker's default.
  var downloads = 3
  /// Layers that are on their way at the same time, counting those that wait for the one below.
  var layers = 8
  /// Bytes that one layer may unpack to: what a decompression bomb gets before it is refused.
  var layerLimit: Int64 = 64 << 30
  /// Seconds that an incomplete blob is kept for a later pull.
  var ingestLifetime = 24 * 3600

  init() {}

  /// - Parameter configuration: `parallel-downloads`, `layer-limit` (bytes), `ingest-lifetime` (seconds); what is left
  ///   out or does not read keeps its default.
  init(_ configuration: [String: String]) {
    func number(_ key: String) -> Int64? { configuration[key].flatMap { Int64($0) }.flatMap { $0 > 0 ? $0 : nil } }
    if let count = number("parallel-downloads") {
      downloads = Int(clamping: count)
      layers = max(layers, downloads)
    }
    if let bytes = number("layer-limit") { layerLimit = bytes }
    if let seconds = number("ingest-lifetime") { ingestLifetime = Int(clamping: seconds) }
  }
}
