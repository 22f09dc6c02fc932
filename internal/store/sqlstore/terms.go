package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

var _ fleet.Drafts = (*Store)(nil)

func parseTerms(text string) (t fleet.Terms, err error) {
	if text != "" {
		err = json.Unmarshal([]byte(text), &t)
	}
	return t, err
}

// refuseByTerms is where the terms of a product hold on every way in. chunks are the
// sizes of all that the release is served in.
func refuseByTerms(t *tx, r fleet.Release, chunks ...int) error {
	var text string
	err := t.Row("SELECT terms FROM products WHERE name = ?", r.Product).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	terms, err := parseTerms(text)
	if err != nil {
		return err
	}
	return terms.Refuse(r, chunks...)
}

func chunksOf(streams []fleet.Stream) []int {
	var sizes []int
	for _, m := range streams {
		if m.Kind == fleet.StreamRaw {
			sizes = append(sizes, int(m.Chunk))
		}
	}
	return sizes
}

func checkedColumn(r fleet.Release) (string, error) {
	b, err := json.Marshal(r.Checked)
	return string(b), err
}

// noteChecked fills in what was not noted when the release was taken in first, and
// whose signatures came since.
func noteChecked(t *tx, r *fleet.Release, c fleet.Checked) (noted bool, err error) {
	if len(c.Signers) <= len(r.Checked.Signers) { // names are of one length
		return false, nil
	}
	r.Checked = c
	text, err := checkedColumn(*r)
	if err != nil {
		return false, err
	}
	n, err := affected(t.Exec("UPDATE releases SET checked = ? WHERE id = ?", text, r.ID))
	return n > 0, err
}

// SetTerms implements fleet.Policies.
func (s *Store) SetTerms(ctx context.Context, product string, change fleet.TermsChange, now time.Time) error {
	if err := fleet.ValidateProduct(product); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		var text string
		if err := t.Row("SELECT terms FROM products WHERE name = ?", product).Scan(&text); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		terms, err := parseTerms(text)
		if err == nil {
			terms, err = change.Apply(terms)
		}
		if err != nil {
			return err
		}
		b, err := json.Marshal(terms)
		if err != nil {
			return err
		}
		// Without a row the product takes unsigned images, and goes on to.
		if _, err := t.Exec(`INSERT INTO products (name, signed_only, terms, added_at, changed_at) VALUES (?1, 0, ?2, ?3, ?3)
 ON CONFLICT (name) DO UPDATE SET terms = excluded.terms, changed_at = excluded.changed_at`, product, string(b), micros(now)); err != nil {
			return err
		}
		if err := addEvent(t, fleet.Event{Time: now, Name: fleet.EventPolicy, Detail: change.Detail(product, terms), Proven: true}); err != nil {
			return err
		}
		return s.catalogueChanged(t)
	})
}

// termsOf are the terms of all products that have any.
func termsOf(v Runner) (map[string]fleet.Terms, error) {
	type row struct{ name, terms string }
	list, err := Collect(func(s Scanner) (r row, err error) { return r, s.Scan(&r.name, &r.terms) })(
		v.Query("SELECT name, terms FROM products WHERE terms NOT IN ('', '{}')"))
	if err != nil {
		return nil, err
	}
	out := make(map[string]fleet.Terms, len(list))
	for _, r := range list {
		if out[r.name], err = parseTerms(r.terms); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// withBuilds is a release and all its builds, which are changed together.
func withBuilds(t *tx, id int64) (r fleet.Release, builds []fleet.Release, err error) {
	r, err = scanRelease(t.Row("SELECT "+releaseColumns+" FROM releases r WHERE r.id = ?", id))
	if err != nil {
		return r, nil, notFound(err, "no release has the number %d", id)
	}
	builds = []fleet.Release{r}
	if r.Signed() {
		builds, err = buildsOf(t, r)
	}
	return r, builds, err
}

// PublishDraft implements fleet.Drafts. The stamp is a new one: v1 devices tell newer
// from older by it.
func (s *Store) PublishDraft(ctx context.Context, id int64, now time.Time) (r fleet.Release, err error) {
	err = s.write(ctx, func(t *tx) error {
		var builds []fleet.Release
		if r, builds, err = withBuilds(t, id); err != nil || r.State == fleet.ReleasePublished {
			return err
		}
		if r.State == fleet.ReleaseWithdrawn {
			return &fleet.Error{Code: fleet.CodeConflict, Message: r.Product + " " + r.Version + " is withdrawn", Hint: "publish it under another version"}
		}
		for _, b := range builds {
			last, err := lastStamp(t)
			if err != nil {
				return err
			}
			at := fleet.NextPublish(now, last)
			if _, err := t.Exec("UPDATE releases SET draft = 0, published_at = ? WHERE id = ?", micros(at), b.ID); err != nil {
				return err
			}
			if b.ID == id {
				r.State, r.PublishedAt = fleet.ReleasePublished, at
			}
			if err := addEvent(t, fleet.Event{Time: now, Version: b.Version, Name: fleet.EventPublished, Detail: b.Product + " " + b.Name() + " was a draft", Proven: true}); err != nil {
				return err
			}
		}
		return s.catalogueChanged(t)
	})
	if err != nil {
		return fleet.Release{}, err
	}
	return r, nil
}

// SetWords implements fleet.Drafts.
func (s *Store) SetWords(ctx context.Context, id int64, w fleet.Words, now time.Time) (r fleet.Release, err error) {
	err = s.write(ctx, func(t *tx) error {
		var builds []fleet.Release
		if r, builds, err = withBuilds(t, id); err != nil {
			return err
		}
		if w.Notes != nil {
			r.Notes = *w.Notes
		}
		detail := "its notes are changed"
		if w.Channel != nil {
			r.Channel = *w.Channel
			detail = "it is in no channel"
			if r.Channel != "" {
				detail = "it is in channel " + r.Channel
			}
		}
		if err := fleet.ValidateWords(r.Channel, r.Notes); err != nil {
			return err
		}
		for _, b := range builds {
			if _, err := t.Exec("UPDATE releases SET notes = ?, channel = ? WHERE id = ?", r.Notes, r.Channel, b.ID); err != nil {
				return err
			}
		}
		if err := addEvent(t, fleet.Event{Time: now, Version: r.Version, Name: fleet.EventNoted, Detail: r.Product + " " + r.Version + ": " + detail, Proven: true}); err != nil {
			return err
		}
		return s.catalogueChanged(t)
	})
	if err != nil {
		return fleet.Release{}, err
	}
	return r, nil
}
