package fleet

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// ZoneAttribute is the attribute of a device that names its time zone.
const ZoneAttribute = "timezone"

// zones that were asked for. There are some 600, and only those that exist are kept.
var zones sync.Map

// LoadZone is a time zone by its name in the IANA data base.
func LoadZone(name string) (*time.Location, error) {
	if z, ok := zones.Load(name); ok {
		return z.(*time.Location), nil
	}
	if name == "Local" {
		return nil, Errorf(CodeInvalid, "Local is another zone on each machine")
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, Errorf(CodeInvalid, "there is no time zone %q", CleanText(name, maxTag))
	}
	zones.Store(name, z)
	return z, nil
}

// Window is a part of the day, in whole minutes; it may go over midnight. The zero
// window is always open.
type Window struct{ from, to int }

// ParseWindow reads "22:00-04:30"; "" is always open.
func ParseWindow(text string) (Window, error) {
	if text == "" {
		return Window{}, nil
	}
	wrong := &Error{Code: CodeInvalid, Message: fmt.Sprintf("%q is no maintenance window", CleanText(text, maxTag)), Hint: "write it like 22:00-04:30"}
	a, b, ok := strings.Cut(text, "-")
	from, err1 := time.Parse("15:04", a)
	to, err2 := time.Parse("15:04", b)
	if !ok || err1 != nil || err2 != nil {
		return Window{}, wrong
	}
	w := Window{from.Hour()*60 + from.Minute(), to.Hour()*60 + to.Minute()}
	if w.from == w.to {
		wrong.Hint = "a window that begins when it ends says nothing: leave it away"
		return Window{}, wrong
	}
	return w, nil
}

// Open says whether the window is open at that time of day.
func (w Window) Open(local time.Time) bool {
	m := local.Hour()*60 + local.Minute()
	switch {
	case w == Window{}:
		return true
	case w.from < w.to:
		return w.from <= m && m < w.to
	}
	return m >= w.from || m < w.to
}
