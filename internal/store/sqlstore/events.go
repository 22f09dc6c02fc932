package sqlstore

import (
	"context"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	maxEvents = 1000 // of one call

	// keepProven and keepUnproven bound the events of one device, the oldest go
	// first: an update makes about 20, so 10,000 are years of a device's life; what
	// nobody proves must not fill the disk, nor push out what is proven.
	keepProven   = 10_000
	keepUnproven = 1_000
	// pruneEvery is after how many new events of a device the bounds are looked at.
	pruneEvery = 100
)

// Events implements fleet.Log.
func (s *Store) Events(ctx context.Context, device string, limit int) (events []fleet.Event, total int, err error) {
	if limit < 1 || limit > maxEvents {
		return nil, 0, fleet.Errorf(fleet.CodeInvalid, "limit is %d, allowed are 1 to %d", limit, maxEvents)
	}
	// Two texts, so that each has the index that serves it.
	where, args := "", []any{}
	if device != "" {
		where, args = " WHERE device = ?", []any{device}
	}
	err = s.db.Read(ctx, "events", func(v Runner) error {
		if err := v.Row("SELECT count(*) FROM events"+where, args...).Scan(&total); err != nil {
			return err
		}
		events, err = Collect(scanEvent)(v.Query("SELECT id, time, device, version, name, detail, proven FROM events"+where+" ORDER BY id DESC LIMIT ?", append(args, limit)...))
		return err
	})
	return events, total, err
}

func scanEvent(row Scanner) (e fleet.Event, err error) {
	var at int64
	err = row.Scan(&e.ID, &at, &e.Device, &e.Version, &e.Name, &e.Detail, &e.Proven)
	e.Time = fromMicros(at)
	return e, err
}

// Append implements fleet.Log. Texts are cleaned and cut; the id is set here.
func (s *Store) Append(ctx context.Context, e fleet.Event) error {
	if e.Name == "" || e.Time.IsZero() {
		return fleet.Errorf(fleet.CodeInvalid, "an event has no name or no time")
	}
	e.Name = fleet.CleanText(e.Name, fleet.MaxDeviceID)
	e.Device = fleet.CleanText(e.Device, fleet.MaxDeviceID)
	e.Version = fleet.CleanText(e.Version, fleet.MaxVersion)
	e.Detail = fleet.CleanText(e.Detail, fleet.MaxText)
	return s.writeAlone(ctx, func(t *tx) error { return addEvent(t, e) })
}

func addEvent(t *tx, e fleet.Event) error {
	if _, err := t.Exec("INSERT INTO events (time, device, version, name, detail, proven) VALUES (?, ?, ?, ?, ?, ?)",
		micros(e.Time), e.Device, e.Version, e.Name, e.Detail, flag(e.Proven)); err != nil {
		return err
	}
	if e.Device == "" {
		return nil // an operator's acts; people make few
	}
	if !t.s.looksAtEvents(e.Device) {
		return nil
	}
	if _, err := t.Exec(`DELETE FROM events WHERE device = ?1 AND proven = 0 AND id <=
 (SELECT id FROM events WHERE device = ?1 AND proven = 0 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, e.Device, keepUnproven); err != nil {
		return err
	}
	_, err := t.Exec(`DELETE FROM events WHERE device = ?1 AND proven = 1 AND id <=
 (SELECT id FROM events WHERE device = ?1 AND proven = 1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, e.Device, keepProven)
	return err
}

// looksAtEvents says after every pruneEvery-th event of a device that its bounds are due.
func (s *Store) looksAtEvents(device string) bool {
	s.eventsMu.Lock()
	defer s.eventsMu.Unlock()
	if s.events[device]++; s.events[device] < pruneEvery {
		return false
	}
	delete(s.events, device)
	return true
}
