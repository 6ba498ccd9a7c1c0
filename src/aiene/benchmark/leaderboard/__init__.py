"""The leaderboard: every run's figures, compared only on the same data, shared without patients."""
