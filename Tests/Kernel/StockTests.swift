import Synchronization
import Testing

@testable import Kernel

@Suite("What is made ahead", .timeLimit(.minutes(1)))
struct StockTests {
  private let stock = Stock<Int>()
  private let discarded = Items()

  private final class Items: Sendable {
    private let items = Mutex<[Int]>([])
    var all: [Int] { items.withLock { $0 } }
    func add(_ item: Int) { items.withLock { $0.append(item) } }
  }

  /// Makes 1, 2, … up to `last`, then none.
  private func fill(to count: Int, keepingUpTo limit: Int = .max, last: Int = .max) async {
    let made = Items()
    await stock.fill(to: count, keepingUpTo: limit) {
      let number = made.all.count + 1
      if number > last { return nil }
      made.add(number)
      return number
    } discard: { [discarded] in
      discarded.add($0)
    }
  }

  @Test func makesWhatIsMissing() async {
    #expect(stock.take() == (nil, true))
    await fill(to: 3)
    #expect(stock.idle == [1, 2, 3] && !stock.isEmpty)
    #expect(stock.take() == (3, false))
    #expect(stock.keep(7, .takenLast) && stock.keep(8))
    #expect(stock.idle == [7, 1, 2, 8])
    #expect(stock.hasRoom(upTo: 5) && !stock.hasRoom(upTo: 4))
    await fill(to: 3)
    #expect(stock.count == 4 && discarded.all.isEmpty)
  }

  @Test func aFailureEndsTheFilling() async {
    await fill(to: 3, last: 2)
    #expect(stock.idle == [1, 2])
    await fill(to: 3)
    #expect(stock.idle == [1, 2, 1], "it is tried again the next time")
  }

  @Test func letsTheSuperfluousGo() async {
    for number in 10...14 { #expect(stock.keep(number)) }
    await fill(to: 1, keepingUpTo: 2)
    #expect(stock.idle == [13, 14] && discarded.all == [10, 11, 12])
  }

  @Test func closingWaitsForWhatIsBeingMade() async {
    #expect(stock.keep(5))
    let began = Once<Void>(), goOn = Once<Void>()
    let filling = Task { [stock, discarded] in
      await stock.fill(to: 4) {
        began.resolve(())
        await goOn.value
        return 6
      } discard: {
        discarded.add($0)
      }
    }
    await began.value
    // Nobody else fills it meanwhile.
    await fill(to: 9)
    #expect(stock.idle == [5])
    async let closed = stock.close()
    while stock.hasRoom(upTo: .max) { await Task.yield() }
    #expect(stock.isEmpty && discarded.all.isEmpty)
    goOn.resolve(())
    #expect(await closed == [5])
    #expect(discarded.all == [6], "what was being made is gone when it is closed")
    await filling.value
    #expect(!stock.keep(1))
    await fill(to: 3)
    #expect(stock.isEmpty)
  }
}
