package rollout

import (
	"context"
	"log/slog"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// troubleEvery is how often trouble that goes on is told: a database that is away for an
// hour is sixty lines of the log and not thousands.
const troubleEvery = time.Minute

// trouble is what fails at every step for a while. It is told when it comes, when it is
// of another kind, once in troubleEvery, and when it is over.
type trouble struct {
	code        fleet.Code // "": there is none
	since, told time.Time
}

// ended is told how each step ended.
func (t *trouble) ended(ctx context.Context, log *slog.Logger, now time.Time, err error) {
	if err == nil {
		if t.code != "" {
			log.InfoContext(ctx, "rollouts are moved again", "after", now.Sub(t.since).Round(time.Second).String())
		}
		*t = trouble{}
		return
	}
	code := fleet.CodeOf(err)
	if t.code == "" {
		t.since = now
	}
	// A wall's clock that was set back tells once more.
	if gap := now.Sub(t.told); code == t.code && gap >= 0 && gap < troubleEvery {
		return
	}
	t.code, t.told = code, now
	log.ErrorContext(ctx, "rollouts could not be moved", "error", err, "for", now.Sub(t.since).Round(time.Second).String())
}
