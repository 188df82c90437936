class KeyIndex:
    def __init__(self, store):
        self.store = store

    def load(self, *, crashed):
        pass

    def query(self, topic, key, n, b, e, done):
        done([], 0, 0)

    def close(self):
        pass

    def delete_before(self, phy):
        pass
