package cbor

// Reader reads one object from front to back. The first error stays: after it
// every call returns zero values, Map and Array no members, so that a caller's
// loops end. It does not change or keep anything but p, of which it hands out
// views. Call Begin first.
//
//	var r cbor.Reader
//	r.Begin(p)
//	for n := r.Map(); n > 0; n-- {
//		switch k := r.Key(); k {
//		case 0:
//			m.name = r.Text(64)
//		default:
//			r.Unknown(k)
//		}
//	}
//	r.End()
//	return r.Err()
type Reader struct {
	p    []byte
	pos  int
	at   int    // where the item that was read last starts
	high uint32 // bits 32 to 63 of the argument that was read last: only numbers have them
	nest nest
	err  Error
}

// Begin starts over with p.
func (r *Reader) Begin(p []byte) { *r = Reader{p: p} }

// Err is the first error, 0 if there was none.
func (r *Reader) Err() Error { return r.err }

// Offset is where in p the item with the error starts; without an error, where
// the item that was read last does.
func (r *Reader) Offset() int { return r.at }

// Pos is the offset in p of the next item.
func (r *Reader) Pos() int { return r.pos }

// Raw is what was read since Pos was from.
func (r *Reader) Raw(from int) []byte {
	if r.err != 0 || from < 0 || from > r.pos {
		return nil
	}
	return r.p[from:r.pos:r.pos]
}

// Fail refuses the item that was read last, for a reason of the caller's. An
// error that is there already stays.
//
//go:noinline
func (r *Reader) Fail(e Error) {
	if r.err == 0 {
		r.err = e
	}
}

// head reads the first byte of an item and its argument, of which bits 32 to 63 go to
// high, and takes no form but the shortest. The caller has seen to it that an item is
// due.
func (r *Reader) head() (major byte, arg uint32) {
	if r.err != 0 {
		return 0, 0
	}
	r.at, r.high = r.pos, 0
	if r.pos >= len(r.p) {
		r.err = ErrEnd
		return 0, 0
	}
	b := r.p[r.pos]
	major, arg = b&^31, uint32(b&31)
	n := 1
	if arg >= 24 {
		// 24 to 27: an argument of 1, 2, 4, 8 bytes behind. 28 to 30 are not
		// assigned, 31 is an indefinite length or the end of one.
		if arg > 27 {
			r.err = ErrForm
			return 0, 0
		}
		if major == majorOther {
			r.err = ErrBanned // floats, and simple values of two bytes
			return 0, 0
		}
		size := 1 << (arg - 24)
		if len(r.p)-r.pos-1 < size {
			r.err = ErrEnd
			return 0, 0
		}
		arg = 0
		upper := byte(0) // the bytes of the upper half: not all 0, or half the size would do
		for i, c := range r.p[r.pos+1 : r.pos+1+size] {
			r.high = r.high<<8 | arg>>24
			arg = arg<<8 | uint32(c)
			if i < size/2 {
				upper |= c
			}
		}
		if size == 1 && arg < 24 || size > 1 && upper == 0 {
			r.err = ErrForm
			return 0, 0
		}
		n += size
	}
	r.pos += n
	return major, arg
}

// value reads the head of a value of the major type want.
func (r *Reader) value(want byte) uint32 {
	if r.err == 0 && !r.nest.valueDue() {
		r.use()
	}
	major, arg := r.head()
	if r.err != 0 {
		return 0
	}
	if major != want {
		r.err = ErrType
		if major >= majorTag && !(major == majorOther && (arg == 20 || arg == 21)) {
			r.err = ErrBanned
		}
		return 0
	}
	return arg
}

// use is a mistake of the caller: it says where, and fails.
func (r *Reader) use() { r.at, r.err = r.pos, ErrUse }

// Map begins a map and returns the number of its pairs. Read them with Key and
// one value each.
func (r *Reader) Map() int { return r.begin(majorMap, 2) }

// Array begins an array and returns the number of its items. Read each.
func (r *Reader) Array() int { return r.begin(majorArray, 1) }

func (r *Reader) begin(major byte, items uint32) int {
	n := r.value(major)
	return r.open(major, n, items)
}

// open: an item has at least one byte, so that a count beyond the bytes that are
// there is refused before a caller sizes anything by it.
func (r *Reader) open(major byte, n, items uint32) int {
	if r.err != 0 {
		return 0
	}
	if r.high != 0 || n > 1<<30 || n*items > uint32(len(r.p)-r.pos) {
		r.err = ErrEnd
		return 0
	}
	if r.err = r.nest.open(major == majorMap, n*items); r.err != 0 {
		return 0
	}
	return int(n)
}

// Key reads the next key of the map that is open.
func (r *Reader) Key() int {
	if r.err == 0 && !r.nest.keyDue() {
		r.use()
	}
	major, arg := r.head()
	if r.err != 0 {
		return 0
	}
	if major > majorNeg || arg > maxKey || r.high != 0 {
		r.err = ErrKey
		return 0
	}
	k := int(arg)
	if major == majorNeg {
		k = -1 - k
	}
	if r.err = r.nest.key(k); r.err != 0 {
		return 0
	}
	return k
}

// Unknown deals with the key k that Key returned last and the caller does not
// know: from 0 up it is critical and the object is refused; the value of a
// negative one is skipped.
func (r *Reader) Unknown(k int) {
	if k >= 0 {
		r.Fail(ErrUnknown)
		return
	}
	r.Skip()
}

// Uint32 reads a number from 0 to limit. (A small chip passes 64 bits in two registers.)
//
//go:noinline
func (r *Reader) Uint32(limit uint32) uint32 {
	v := r.value(majorUint)
	if r.err == 0 && (r.high != 0 || v > limit) {
		r.err = ErrLimit
	}
	if r.err != 0 {
		return 0
	}
	r.nest.close()
	return v
}

// long is the argument that was read last, low its lower half.
func (r *Reader) long(low uint32) uint64 { return uint64(r.high)<<32 | uint64(low) }

// Uint reads a number from 0 to limit.
func (r *Reader) Uint(limit uint64) uint64 {
	v := r.long(r.value(majorUint))
	if r.err == 0 && v > limit {
		r.err = ErrLimit
	}
	if r.err != 0 {
		return 0
	}
	r.nest.close()
	return v
}

// Int reads a number of either sign.
func (r *Reader) Int() int64 {
	negative := r.err == 0 && r.pos < len(r.p) && r.p[r.pos]&^31 == majorNeg
	want := byte(majorUint)
	if negative {
		want = majorNeg
	}
	v := r.long(r.value(want))
	if r.err == 0 && v > 1<<63-1 {
		r.err = ErrLimit
	}
	if r.err != 0 {
		return 0
	}
	r.nest.close()
	if negative {
		return -1 - int64(v)
	}
	return int64(v)
}

// Bool reads true or false.
func (r *Reader) Bool() bool {
	v := r.value(majorOther)
	if r.err == 0 && v != 20 && v != 21 {
		r.err = ErrBanned
	}
	if r.err != 0 {
		return false
	}
	r.nest.close()
	return v == 21
}

// Bytes reads a byte string of at most limit bytes, as a view into p.
func (r *Reader) Bytes(limit int) []byte {
	n := r.value(majorBytes)
	return r.take(majorBytes, n, 0, limit)
}

// Fixed reads a byte string of exactly size bytes, as a view into p.
func (r *Reader) Fixed(size int) []byte {
	n := r.value(majorBytes)
	return r.take(majorBytes, n, size, size)
}

// Text reads UTF-8 text of at most limit bytes, as a view into p.
func (r *Reader) Text(limit int) []byte {
	n := r.value(majorText)
	return r.take(majorText, n, 0, limit)
}

// take is the n bytes of a string whose head was read.
func (r *Reader) take(major byte, n uint32, least, most int) []byte {
	if r.err != 0 {
		return nil
	}
	if r.high != 0 || uint(n) > uint(len(r.p)-r.pos) {
		r.err = ErrEnd
		return nil
	}
	k := int(n)
	if k > most {
		r.err = ErrLimit
		return nil
	}
	if k < least {
		r.err = ErrValue
		return nil
	}
	v := r.p[r.pos : r.pos+k : r.pos+k]
	if major == majorText && !validText(v) {
		r.err = ErrText
		return nil
	}
	r.pos += k
	r.nest.close()
	return v
}

// Tag reads a tag, which must be the one wanted and stand before everything else.
func (r *Reader) Tag(want uint64) {
	if r.err == 0 && r.pos != 0 {
		r.use()
	}
	major, arg := r.head()
	if r.err == 0 && (major != majorTag || r.long(arg) != want) {
		r.err = ErrType
	}
}

// Skip reads a value of any type and everything in it, as strictly as if it
// were known: maps have small integers for keys, strings have no limit but p.
// How long it takes is bounded by p, what it needs by MaxDepth.
func (r *Reader) Skip() {
	base := r.nest.depth
	r.skipOne()
	for r.err == 0 && r.nest.depth > base {
		if r.nest.keyDue() {
			r.Key()
		} else {
			r.skipOne()
		}
	}
}

// skipOne reads a value, of a map or an array only the head.
func (r *Reader) skipOne() {
	if r.err == 0 && !r.nest.valueDue() {
		r.use()
	}
	major, arg := r.head()
	if r.err != 0 {
		return
	}
	switch major {
	case majorUint, majorNeg:
		r.nest.close()
	case majorBytes, majorText:
		r.take(major, arg, 0, len(r.p))
	case majorArray:
		r.open(major, arg, 1)
	case majorMap:
		r.open(major, arg, 2)
	default:
		if major == majorTag || (arg != 20 && arg != 21) {
			r.err = ErrBanned
			return
		}
		r.nest.close()
	}
}

// End is the end of the object: nothing may be behind it.
//
//go:noinline
func (r *Reader) End() {
	if r.err != 0 {
		return
	}
	if !r.nest.done {
		r.use()
	} else if r.pos != len(r.p) {
		r.at, r.err = r.pos, ErrTrailing
	}
}
