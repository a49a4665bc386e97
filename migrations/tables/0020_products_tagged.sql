update products set is_new = instr(tags, ',new,') > 0, is_best = instr(tags, ',best,') > 0
