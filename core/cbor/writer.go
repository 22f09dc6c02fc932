package cbor

// Writer writes one object into the caller's buffer, always in the shortest
// form. Its first error stays. It refuses what a Reader would refuse: keys out
// of order, too deep, more or fewer members than announced. Call Begin first.
type Writer struct {
	buf  []byte
	n    int
	nest nest
	err  Error
}

// Begin starts over, at the front of buf.
func (w *Writer) Begin(buf []byte) { *w = Writer{buf: buf} }

// Done is what was written: the front of the buffer. ErrSpace if it did not fit.
func (w *Writer) Done() ([]byte, Error) {
	if w.err == 0 && !w.nest.done {
		w.err = ErrUse
	}
	if w.err != 0 {
		return nil, w.err
	}
	return w.buf[:w.n:w.n], 0
}

// head writes the first byte of an item and its argument, whose bits 32 to 63 are high.
func (w *Writer) head(major byte, high, arg uint32) {
	if w.err != 0 {
		return
	}
	size, low := 0, byte(arg)
	switch {
	case high != 0:
		size, low = 8, 27
	case arg < 24:
	case arg < 1<<8:
		size, low = 1, 24
	case arg < 1<<16:
		size, low = 2, 25
	default:
		size, low = 4, 26
	}
	if len(w.buf)-w.n < 1+size {
		w.err = ErrSpace
		return
	}
	w.buf[w.n] = major | low
	for i := size; i > 0; i-- {
		w.buf[w.n+i] = byte(arg)
		arg, high = arg>>8|high<<24, high>>8
	}
	w.n += 1 + size
}

// long is head with an argument of 64 bits.
func (w *Writer) long(major byte, v uint64) { w.head(major, uint32(v>>32), uint32(v)) }

// length is head with a length or a count.
func (w *Writer) length(major byte, n int) { w.long(major, uint64(n)) }

// value begins a value; false if none may stand here.
func (w *Writer) value() bool {
	if w.err == 0 && !w.nest.valueDue() {
		w.err = ErrUse
	}
	return w.err == 0
}

// Map begins a map of n pairs: a Key and a value each, keys rising bytewise.
func (w *Writer) Map(n int) { w.open(majorMap, n, 2) }

// Array begins an array of n items.
func (w *Writer) Array(n int) { w.open(majorArray, n, 1) }

func (w *Writer) open(major byte, n int, items uint32) {
	if w.value() && (n < 0 || n > 1<<30) {
		w.err = ErrUse
	}
	w.length(major, n)
	if w.err == 0 {
		w.err = w.nest.open(major == majorMap, uint32(n)*items)
	}
}

// Key writes a map key.
func (w *Writer) Key(k int) {
	if w.err != 0 {
		return
	}
	if k < minKey || k > maxKey {
		w.err = ErrKey
		return
	}
	if w.err = w.nest.key(k); w.err != 0 {
		return
	}
	if k < 0 {
		w.head(majorNeg, 0, uint32(-1-k))
	} else {
		w.head(majorUint, 0, uint32(k))
	}
}

// Uint32 writes a number. (A small chip passes 64 bits in two registers.)
func (w *Writer) Uint32(v uint32) {
	if w.value() {
		w.head(majorUint, 0, v)
		w.nest.close()
	}
}

// Uint writes a number.
func (w *Writer) Uint(v uint64) {
	if w.value() {
		w.long(majorUint, v)
		w.nest.close()
	}
}

// Int writes a number of either sign.
func (w *Writer) Int(v int64) {
	if !w.value() {
		return
	}
	if v < 0 {
		w.long(majorNeg, uint64(-1-v))
	} else {
		w.long(majorUint, uint64(v))
	}
	w.nest.close()
}

// Bool writes true or false.
func (w *Writer) Bool(v bool) {
	if !w.value() {
		return
	}
	if v {
		w.head(majorOther, 0, simpleTrue&31)
	} else {
		w.head(majorOther, 0, simpleFalse&31)
	}
	w.nest.close()
}

// Bytes writes a byte string.
func (w *Writer) Bytes(p []byte) {
	if w.value() {
		w.length(majorBytes, len(p))
		w.copy(p)
		w.nest.close()
	}
}

// TextBytes writes text; ErrText if it is not UTF-8.
func (w *Writer) TextBytes(p []byte) {
	if !w.value() {
		return
	}
	if !validText(p) {
		w.err = ErrText
		return
	}
	w.length(majorText, len(p))
	w.copy(p)
	w.nest.close()
}

// Text writes text; ErrText if it is not UTF-8.
func (w *Writer) Text(s string) {
	if !w.value() {
		return
	}
	w.length(majorText, len(s))
	if w.err == 0 && len(w.buf)-w.n < len(s) {
		w.err = ErrSpace
	}
	if w.err != 0 {
		return
	}
	k := copy(w.buf[w.n:], s)
	// Looked at where it lies now: s as bytes would be a copy on the heap.
	if !validText(w.buf[w.n : w.n+k]) {
		w.err = ErrText
		return
	}
	w.n += k
	w.nest.close()
}

// Raw writes a value that is encoded already. That it is one value of the
// profile, and not too deep here, is the caller's word.
func (w *Writer) Raw(p []byte) {
	if w.value() {
		w.copy(p)
		w.nest.close()
	}
}

// Tag writes a tag, before everything else.
func (w *Writer) Tag(v uint64) {
	if w.err == 0 && w.n != 0 {
		w.err = ErrUse
	}
	w.long(majorTag, v)
}

func (w *Writer) copy(p []byte) {
	if w.err == 0 && len(w.buf)-w.n < len(p) {
		w.err = ErrSpace
	}
	if w.err == 0 {
		w.n += copy(w.buf[w.n:], p)
	}
}
