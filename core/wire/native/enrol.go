package native

import "github.com/runnel-fota/runnel/core/cbor"

// Enrol is how a device asks, with a token, to become known. Its MAC is of
// Keys.DeriveToken.
type Enrol struct {
	Token    []byte // public id, 1 to MaxToken bytes of printable ASCII without spaces
	Device   []byte // as in a poll
	Nonce    []byte // NonceSize random bytes
	Hardware []byte // 1 to MaxHardware bytes
}

const enrolMust = 1<<4 - 1

func (m *Enrol) valid() bool {
	return isName(m.Token) && len(m.Token) <= MaxToken && isName(m.Device) && len(m.Device) <= MaxDevice &&
		len(m.Nonce) == NonceSize && between(m.Hardware, MaxHardware)
}

// Encode puts the body into buf and returns it.
func (m *Enrol) Encode(buf []byte, mac MAC) ([]byte, Error) {
	if !m.valid() {
		return nil, ErrField
	}
	var w cbor.Writer
	w.Begin(buf)
	w.Map(4)
	fieldText(&w, 0, m.Token)
	fieldText(&w, 1, m.Device)
	fieldBytes(&w, 2, m.Nonce)
	fieldBytes(&w, 3, m.Hardware)
	return seal(&w, buf, mac, MessageEnrol)
}

// Decode reads the body of an enrolment whose token PeekToken found.
func (m *Enrol) Decode(body []byte, mac MAC) Error {
	*m = Enrol{}
	var r cbor.Reader
	err := open(&r, body, mac, MessageEnrol)
	if err == 0 {
		err = m.read(&r)
	}
	if err != 0 {
		*m = Enrol{}
	}
	return err
}

func (m *Enrol) read(r *cbor.Reader) Error {
	var seen uint32
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			m.Token = r.Text(MaxToken)
		case 1:
			m.Device = r.Text(MaxDevice)
		case 2:
			m.Nonce = r.Fixed(NonceSize)
		case 3:
			m.Hardware = r.Bytes(MaxHardware)
		default:
			r.Unknown(k)
			continue
		}
		seen |= 1 << k
	}
	if err := end(r, seen, enrolMust); err != 0 {
		return err
	}
	if !m.valid() {
		return ErrField
	}
	return 0
}

// EnrolStatus is what became of an enrolment.
type EnrolStatus uint8

const (
	EnrolTaken   EnrolStatus = iota + 1 // both sides compute DeviceSecret
	EnrolWaits                          // for approval: ask again later
	EnrolRefused                        // the token is spent, or not for this device
)

// Enrolled answers an Enrol.
type Enrolled struct {
	Device      []byte // of the request
	Nonce       []byte // of the request
	ServerNonce []byte // NonceSize random bytes
	Status      EnrolStatus
}

const enrolledMust = 1<<4 - 1

func (m *Enrolled) valid() bool {
	return isName(m.Device) && len(m.Device) <= MaxDevice && len(m.Nonce) == NonceSize && len(m.ServerNonce) == NonceSize &&
		m.Status >= EnrolTaken && m.Status <= EnrolRefused
}

// Encode puts the body into buf and returns it.
func (m *Enrolled) Encode(buf []byte, mac MAC) ([]byte, Error) {
	if !m.valid() {
		return nil, ErrField
	}
	var w cbor.Writer
	w.Begin(buf)
	w.Map(4)
	fieldText(&w, 0, m.Device)
	fieldBytes(&w, 1, m.Nonce)
	fieldBytes(&w, 2, m.ServerNonce)
	field(&w, 3, uint32(m.Status))
	return seal(&w, buf, mac, MessageEnrolled)
}

// Decode reads the answer to the enrolment that device sent with nonce. Another
// one is ErrOther.
func (m *Enrolled) Decode(body []byte, mac MAC, device []byte, nonce *[NonceSize]byte) Error {
	*m = Enrolled{}
	var r cbor.Reader
	err := open(&r, body, mac, MessageEnrolled)
	if err == 0 {
		err = m.read(&r)
	}
	if err == 0 && (!equal(m.Nonce, nonce[:]) || !equal(m.Device, device)) {
		err = ErrOther
	}
	if err != 0 {
		*m = Enrolled{}
	}
	return err
}

func (m *Enrolled) read(r *cbor.Reader) Error {
	var seen uint32
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			m.Device = r.Text(MaxDevice)
		case 1:
			m.Nonce = r.Fixed(NonceSize)
		case 2:
			m.ServerNonce = r.Fixed(NonceSize)
		case 3:
			m.Status = EnrolStatus(r.Uint32(0xFF))
		default:
			r.Unknown(k)
			continue
		}
		seen |= 1 << k
	}
	if err := end(r, seen, enrolledMust); err != 0 {
		return err
	}
	if !m.valid() {
		return ErrField
	}
	return 0
}
