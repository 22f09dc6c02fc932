package v1

// lexer reads JSON a byte at a time in constant memory: it knows where it is
// (depth, object or array, the path of keys of interest) and hands the values of
// interest on. Text is taken as it comes; what is no UTF-8 is not refused.
type lexer struct {
	state   lexState
	depth   uint8
	arrays  uint8           // bit d: the container at depth d is an array
	keys    [maxDepth]field // the key of interest at each depth, fieldNone else
	key     [maxKey]byte
	keyLen  uint8 // maxKey+1: longer than any key of interest
	literal uint8 // how much of it was read, of which
	which   uint8
	digits  uint8
	number  numState
	neg     bool
	value   uint32
	unicode uint16 // of a \u escape
	hexLeft uint8
	inKey   bool
}

const (
	maxDepth = 8  // nesting; the answers have three levels
	maxKey   = 17 // "rollback_required"
)

type lexState uint8

const (
	lexValue lexState = iota
	lexFirstKey
	lexNextKey
	lexColon
	lexString
	lexEscape
	lexUnicode
	lexNumber
	lexLiteral
	lexAfter
	lexFirstItem
	lexEnd
)

type numState uint8

const (
	numSign numState = iota
	numZero
	numInt
	numPoint
	numFraction
	numE
	numESign
	numExp
)

var literals = [3]string{"true", "false", "null"}

const (
	litTrue = iota
	litFalse
	litNull
)

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// byte takes one byte of the answer.
func (a *Answer) byte(c byte) error {
	l := &a.lex
	switch l.state {
	case lexString:
		switch {
		case c == '"':
			return a.endString()
		case c == '\\':
			l.state = lexEscape
			return nil
		case c < 0x20:
			return ErrSyntax
		}
		return a.char(c)
	case lexEscape:
		l.state = lexString
		switch c {
		case '"', '\\', '/':
			return a.char(c)
		case 'b':
			return a.char('\b')
		case 'f':
			return a.char('\f')
		case 'n':
			return a.char('\n')
		case 'r':
			return a.char('\r')
		case 't':
			return a.char('\t')
		case 'u':
			l.state, l.unicode, l.hexLeft = lexUnicode, 0, 4
			return nil
		}
		return ErrSyntax
	case lexUnicode:
		v, ok := hexDigit(c)
		if !ok {
			return ErrSyntax
		}
		l.unicode = l.unicode<<4 | uint16(v)
		if l.hexLeft--; l.hexLeft == 0 {
			l.state = lexString
			return a.rune(l.unicode)
		}
		return nil
	case lexNumber:
		more, err := a.digit(c)
		if err != nil || more {
			return err
		}
		// c is the byte behind the number.
	case lexLiteral:
		word := literals[l.which]
		if c != word[l.literal] {
			return ErrSyntax
		}
		if l.literal++; int(l.literal) == len(word) {
			l.state = lexAfter
			return a.endLiteral(l.which)
		}
		return nil
	}
	if isSpace(c) {
		return nil
	}
	switch l.state {
	case lexFirstItem:
		if c == ']' {
			return a.close(true)
		}
		return a.startValue(c)
	case lexValue:
		return a.startValue(c)
	case lexFirstKey, lexNextKey:
		if c == '}' && l.state == lexFirstKey {
			return a.close(false)
		}
		if c != '"' {
			return ErrSyntax
		}
		l.inKey, l.keyLen, l.state = true, 0, lexString
		return nil
	case lexColon:
		if c != ':' {
			return ErrSyntax
		}
		l.state = lexValue
		return nil
	case lexAfter, lexNumber:
		if l.depth == 0 {
			return ErrTrailing
		}
		array := l.arrays&(1<<(l.depth-1)) != 0
		switch {
		case c == ',' && array:
			l.state = lexValue
		case c == ',':
			l.state = lexNextKey
		case c == ']' && array, c == '}' && !array:
			return a.close(array)
		default:
			return ErrSyntax
		}
		return nil
	}
	return ErrTrailing
}

func (a *Answer) startValue(c byte) error {
	l := &a.lex
	if l.depth == 0 && c != '{' {
		return ErrField // every answer is an object
	}
	switch {
	case c == '{' || c == '[':
		if l.depth == maxDepth {
			return ErrDepth
		}
		if err := a.open(c == '['); err != nil {
			return err
		}
		l.keys[l.depth] = fieldNone
		l.arrays &^= 1 << l.depth
		l.state = lexFirstKey
		if c == '[' {
			l.arrays |= 1 << l.depth
			l.state = lexFirstItem
		}
		l.depth++
		return nil
	case c == '"':
		l.inKey, l.state = false, lexString
		return a.startString()
	case c == '-' || c >= '0' && c <= '9':
		l.state, l.number, l.neg, l.value, l.digits = lexNumber, numSign, false, 0, 0
		if c == '-' {
			l.neg = true
			return nil
		}
		_, err := a.digit(c)
		return err
	case c == 't':
		l.which = litTrue
	case c == 'f':
		l.which = litFalse
	case c == 'n':
		l.which = litNull
	default:
		return ErrSyntax
	}
	l.state, l.literal = lexLiteral, 1
	return nil
}

func (a *Answer) close(array bool) error {
	l := &a.lex
	l.depth--
	if (l.arrays&(1<<l.depth) != 0) != array {
		return ErrSyntax
	}
	l.state = lexAfter
	if l.depth == 0 {
		l.state = lexEnd
	}
	return nil
}

// digit takes a byte of a number by JSON's grammar; more is false where c is the
// byte behind it.
func (a *Answer) digit(c byte) (more bool, err error) {
	l := &a.lex
	d := c >= '0' && c <= '9'
	switch l.number {
	case numSign:
		if !d {
			return false, ErrSyntax
		}
		l.number = numInt
		if c == '0' {
			l.number = numZero
		}
		a.addDigit(c)
		return true, nil
	case numZero, numInt:
		switch {
		case d && l.number == numZero:
			return false, ErrSyntax
		case d:
			a.addDigit(c)
			return true, nil
		case c == '.':
			l.number = numPoint
			return true, nil
		case c == 'e' || c == 'E':
			l.number = numE
			return true, nil
		}
	case numPoint:
		if !d {
			return false, ErrSyntax
		}
		l.number = numFraction
		return true, nil
	case numFraction:
		if d {
			return true, nil
		}
		if c == 'e' || c == 'E' {
			l.number = numE
			return true, nil
		}
	case numE:
		if c == '+' || c == '-' {
			l.number = numESign
			return true, nil
		}
		if !d {
			return false, ErrSyntax
		}
		l.number = numExp
		return true, nil
	case numESign:
		if !d {
			return false, ErrSyntax
		}
		l.number = numExp
		return true, nil
	case numExp:
		if d {
			return true, nil
		}
	}
	l.state = lexAfter
	return false, a.endNumber()
}

// addDigit saturates: digits beyond ten mark the number as too large.
func (a *Answer) addDigit(c byte) {
	l := &a.lex
	v := uint64(l.value)*10 + uint64(c-'0')
	if v > 0xFFFFFFFF {
		l.digits = 255
		return
	}
	l.value = uint32(v)
	if l.digits < 254 {
		l.digits++
	}
}

// rune hands a \u escape on as UTF-8; halves of a pair become U+FFFD each.
func (a *Answer) rune(r uint16) error {
	switch {
	case r < 0x80:
		return a.char(byte(r))
	case r < 0x800:
		if err := a.char(0xC0 | byte(r>>6)); err != nil {
			return err
		}
		return a.char(0x80 | byte(r&0x3F))
	case r >= 0xD800 && r < 0xE000:
		r = 0xFFFD
	}
	if err := a.char(0xE0 | byte(r>>12)); err != nil {
		return err
	}
	if err := a.char(0x80 | byte(r>>6&0x3F)); err != nil {
		return err
	}
	return a.char(0x80 | byte(r&0x3F))
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
