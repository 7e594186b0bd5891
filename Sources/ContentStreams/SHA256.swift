import CCrypto
import Contracts
import Glibc

/// An incremental SHA-256 (libcrypto's EVP_DigestUpdate(3), which uses the processor's own instructions).
public struct SHA256: ~Copyable {
  private let context: OpaquePointer?

  public init() {
    context = EVP_MD_CTX_new()
    EVP_DigestInit_ex(context, EVP_sha256(), nil)
  }

  deinit { EVP_MD_CTX_free(context) }

  public mutating func update(_ bytes: UnsafeRawBufferPointer) {
    guard let base = bytes.baseAddress, !bytes.isEmpty else { return }
    EVP_DigestUpdate(context, base, bytes.count)
  }

  /// The digest of everything so far; the value is spent.
  ///
  /// - Throws: `internalFailure` when libcrypto had no memory.
  public consuming func finish() throws(EngineError) -> Digest {
    var bytes = [UInt8](repeating: 0, count: 32)
    var length: UInt32 = 0
    guard context != nil, EVP_DigestFinal_ex(context, &bytes, &length) == 1, let digest = Digest(bytes: bytes) else {
      throw EngineError(.internalFailure, "libcrypto cannot compute a SHA-256")
    }
    return digest
  }

  public static func digest(of bytes: [UInt8]) throws(EngineError) -> Digest {
    var hash = SHA256()
    bytes.withUnsafeBytes { hash.update($0) }
    return try hash.finish()
  }
}
