import Contracts
import Glibc
import LinuxSystem
import Testing

/// Certificates that the tests' own authority signs, made by openssl(1).
enum TestAuthority {
  /// - Parameters:
  ///   - names: of the files of the authority and of the server.
  ///   - hosts: for which the server's certificate is.
  static func make(
    in scratch: Scratch, names: (authority: String, server: String) = ("ca", "server"),
    hosts: String = "IP:127.0.0.1,DNS:localhost"
  ) throws {
    let (authority, server) = names
    try scratch.write("\(server).ext", "subjectAltName=\(hosts)\nextendedKeyUsage=serverAuth,clientAuth\n")
    try shell(
      """
      cd \(scratch.path)
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=\(authority)' \
        -keyout \(authority).key -out \(authority).crt
      openssl req -newkey rsa:2048 -nodes -subj '/CN=localhost' -keyout \(server).key -out \(server).csr
      openssl x509 -req -in \(server).csr -CA \(authority).crt -CAkey \(authority).key -CAcreateserial -days 2 \
        -extfile \(server).ext -out \(server).crt
      """)
  }
}

/// A token server (distribution.github.io/distribution/spec/auth/jwt): knows one user, and gives nothing to others.
final class TokenServer: Sendable {
  let server: FakeServer

  var host: String { server.host }

  init(_ scratch: Scratch) throws {
    let directory = scratch.path
    server = try FakeServer { request in
      var form = request.method == "POST" ? String(decoding: request.body, as: UTF8.self) : ""
      if let mark = request.target.firstIndex(of: "?") {
        form = String(request.target[request.target.index(after: mark)...])
      }
      let fields = form.split(separator: "&").map { pair in
        let parts = pair.split(separator: "=", maxSplits: 1).map { Self.decoded($0) }
        return (parts[0], parts.count > 1 ? parts[1] : "")
      }
      func field(_ name: String) -> String? { fields.first { $0.0 == name }?.1 }
      let isKnown: Bool
      if request.method == "POST" {
        isKnown = field("refresh_token") == "identity" && field("grant_type") == "refresh_token"
      } else if let authorization = request.headers["authorization"] {
        guard authorization == "Basic \(Base64.encode("user:secret".utf8))" else {
          return .init(401, text: #"{"details":"incorrect username or password"}"#)
        }
        isKnown = true
      } else {
        isKnown = false
      }
      let scopes = fields.filter { $0.0 == "scope" }.flatMap { $0.1.split(separator: " ").map(String.init) }
      guard let token = try? Self.sign(isKnown ? scopes : [], in: directory) else { return .init(500) }
      let identity = field("offline_token") == "true" ? #","refresh_token":"identity""# : ""
      return .init(text: #"{"token":"\#(token)","expires_in":300\#(identity)}"#)
    }
  }

  private static func decoded(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = text.utf8[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"), let value = UInt8(String(Substring(rest.prefix(2))), radix: 16) {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// A JWT signed with the server's key, whose certificate it carries.
  private static func sign(_ scopes: [String], in directory: String) throws -> String {
    let access = scopes.map { scope in
      let parts = scope.split(separator: ":").map(String.init)
      let actions = parts[2].split(separator: ",").map { "\"\($0)\"" }.joined(separator: ",")
      return #"{"type":"\#(parts[0])","name":"\#(parts[1])","actions":[\#(actions)]}"#
    }
    let certificate = try shell("openssl x509 -in \(directory)/server.crt -outform DER | base64 -w0")
    let now = time(nil)
    func part(_ text: String) -> String { urlSafe(Base64.encode(text.utf8)) }
    let head = part(#"{"typ":"JWT","alg":"RS256","x5c":["\#(certificate)"]}"#)
    let claims = part(
      #"{"iss":"test-issuer","sub":"user","aud":"test-registry","exp":\#(now + 300),"nbf":\#(now - 5),"iat":\#(now),"#
        + #""jti":"\#(ObjectID.random())","access":[\#(access.joined(separator: ","))]}"#)
    let signature = try shell(
      "printf '%s' '\(head).\(claims)' | openssl dgst -sha256 -sign \(directory)/server.key | base64 -w0")
    return "\(head).\(claims).\(urlSafe(signature))"
  }

  private static func urlSafe(_ text: String) -> String {
    String(
      text.compactMap { character -> Character? in
        switch character {
        case "+": "-"
        case "/": "_"
        case "=", "\n": nil
        default: character
        }
      })
  }
}
