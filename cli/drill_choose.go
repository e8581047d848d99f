package cli

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/shoal-os/shoal/node/api/client"
)

// chooseVictims picks, by chance, who drops out: of those that consent, at most the share of all members less those that are away
// already, fewer than the copies that the scarcest file has online (least; negative: there is no file), and nobody without whom a
// job's stewards were no majority. The error says why it can be nobody.
func chooseVictims(pool client.Pool, consents map[string]bool, share float64, least scarce, jobs []client.Job) ([]client.Member, error) {
	all, gone := len(pool.Members), 0
	var willing []client.Member
	for _, m := range pool.Members {
		if m.State != "online" && !m.Self {
			gone++
		}
		if consents[m.ID] && !m.Self {
			willing = append(willing, m)
		}
	}
	// 34 % of 3 is one, and 33.3 % of 3 is not; that 0.29 times 100 is a little less than 29 must not matter.
	asked := int(math.Floor(share*float64(all) + 1e-9))
	switch {
	case asked < 1:
		return nil, client.Errorf(client.KindInvalid, fmt.Sprintf("--kill %.0f%% is one of them", math.Ceil(100/float64(all))),
			"%g%% of %s is nobody", 100*share, plural(all, "member"))
	case gone >= asked:
		return nil, client.Errorf(client.KindRefused, "wait until all are online; `shoal peers` shows who is not",
			"%d of %s are away already, and %g%% is %d", gone, plural(all, "member"), 100*share, asked)
	case len(willing) == 0:
		return nil, client.Errorf(client.KindRefused, "on machines that may drop out: `shoal up --allow-drill`, or allow-drill = true in the home's config",
			"no other member that is online allows drills")
	case least.online >= 0 && least.online < 2:
		return nil, client.Errorf(client.KindRefused, "wait until it has more copies online (`shoal ls -l` shows them), or put it with more",
			"%s has %d copies that can be read now, so nobody may drop out", clean(least.path), least.online)
	}
	most := asked - gone
	if least.online >= 0 {
		most = min(most, least.online-1)
	}
	rand.Shuffle(len(willing), func(i, j int) { willing[i], willing[j] = willing[j], willing[i] })
	var out []client.Member
	dropped := map[string]bool{}
	held := ""
	for _, m := range willing {
		if len(out) == most {
			break
		}
		dropped[m.ID] = true
		if name := withoutMajority(jobs, dropped); name != "" {
			held = name
			delete(dropped, m.ID)
			continue
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, client.Errorf(client.KindRefused, "try again when it is over; `shoal ps` shows jobs",
			"without any of those who may drop out, job %s had no majority of its stewards", clean(held))
	}
	return out, nil
}

// withoutMajority names a job that is not over and whose stewards that are left are no majority.
func withoutMajority(jobs []client.Job, dropped map[string]bool) string {
	for _, j := range jobs {
		here, had := 0, 0
		for _, s := range j.Stewards {
			if s.Online {
				had++
				if !dropped[s.ID] {
					here++
				}
			}
		}
		if !j.Over() && here < had && here <= len(j.Stewards)/2 {
			return j.Name
		}
	}
	return ""
}

// scarce is the file with the fewest copies that can be read now.
type scarce struct {
	path   string
	online int // -1: there is no file
}

func leastOnline(files []client.PoolFile) scarce {
	least := scarce{online: -1}
	for _, f := range files {
		if f.Safety != nil && f.Safety.State != "empty" && (least.online < 0 || f.Safety.Online < least.online) {
			least = scarce{f.Path, f.Safety.Online}
		}
	}
	return least
}
